//! How many vCPUs of Fargate the account may have at once, as Service Quotas has it (facts 3.2).

use serde_json::json;

use crate::errors::CallError;
use crate::session::Session;

/// vCPUs at once, in one account and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FargateQuota {
    OnDemand,
    Spot,
}

impl FargateQuota {
    pub fn code(self) -> &'static str {
        match self {
            Self::OnDemand => "L-3032A538",
            Self::Spot => "L-36FBB829",
        }
    }
}

/// Needs `servicequotas:GetServiceQuota`.
pub async fn fargate_quota(session: &Session, quota: FargateQuota) -> Result<f64, CallError> {
    let question = json!({"ServiceCode": "fargate", "QuotaCode": quota.code()});
    let answer = session.json("servicequotas", "ServiceQuotasV20190624.GetServiceQuota", question).await?;
    let value = answer["Quota"]["Value"].as_f64();
    value.ok_or_else(|| CallError::NoAnswer("not understood: a quota without a value".into()))
}
