//! How many vCPUs the account may have at once, against how many jobs the runner may have.

use aws::inspect::{self, FargateQuota, TaskDefinition};
use aws::{CallError, Session};

use super::{Finding, Subject};

const QUOTA: &str = "vcpu-quota";

pub async fn check(subject: &Subject, session: &Session, definition: Option<&TaskDefinition>) -> Vec<Finding> {
    let mut quotas = Vec::new();
    for quota in wanted(subject) {
        quotas.push((quota, inspect::fargate_quota(session, quota).await));
    }
    vec![judge(subject.concurrent, session.region(), definition.and_then(|definition| definition.cpu), &quotas)]
}

/// The quotas that tasks of this runner count against: when one is used up, the manager goes on with the next provider.
fn wanted(subject: &Subject) -> Vec<FargateQuota> {
    let names = || subject.runner.fargate.capacity_providers.iter().map(|provider| provider.name.as_str());
    let mut wanted = Vec::new();
    if names().next().is_none() || names().any(|name| name != "FARGATE_SPOT") {
        wanted.push(FargateQuota::OnDemand);
    }
    if names().any(|name| name == "FARGATE_SPOT") {
        wanted.push(FargateQuota::Spot);
    }
    wanted
}

/// `cpu` is one task's, in CPU units.
fn judge(
    concurrent: usize,
    region: &str,
    cpu: Option<u32>,
    quotas: &[(FargateQuota, Result<f64, CallError>)],
) -> Finding {
    let mut values = Vec::new();
    for (quota, value) in quotas {
        match value {
            Ok(value) => values.push((*quota, *value)),
            Err(error) => return Finding::not_seen(QUOTA, "servicequotas:GetServiceQuota", error),
        }
    }
    let Some(cpu) = cpu.filter(|cpu| *cpu > 0) else {
        return Finding::unknown(
            QUOTA,
            "how much cpu a task takes is not known",
            "It is seen once the task definition is.",
        );
    };
    // A task takes all of its vCPUs from one quota.
    let vcpus = f64::from(cpu) / 1024.0;
    let room = values.iter().map(|(_, value)| (value / vcpus).floor().max(0.0) as usize).sum::<usize>();
    let have: Vec<_> = values.iter().map(|(quota, value)| format!("{value} vCPU {}", name(*quota))).collect();
    let evidence = format!(
        "{} at once in {region}, shared by the whole account: room for {room} tasks of {vcpus} vCPU; the runner may have {concurrent} jobs at once",
        have.join(" and "),
    );
    if room >= concurrent {
        return Finding::good(QUOTA, evidence);
    }
    let asks: Vec<_> = values.iter().map(|(quota, _)| increase(*quota, concurrent as f64 * vcpus, region)).collect();
    let ask = asks.join(" or ");
    match room {
        0 => Finding::bad(
            QUOTA,
            evidence,
            "No job can run: one task is more than the quota.",
            format!("Ask for more: {ask}."),
        ),
        _ => Finding::warning(
            QUOTA,
            evidence,
            format!(
                "With {room} jobs running the next ones wait for minutes, and then fail: \"You've reached the limit on the number of vCPUs you can run concurrently\"."
            ),
            format!(
                "Ask for more: {ask}; or set `limit` of the runner to {room}, so that jobs wait in GitLab's queue."
            ),
        ),
    }
}

fn name(quota: FargateQuota) -> &'static str {
    match quota {
        FargateQuota::OnDemand => "on demand",
        FargateQuota::Spot => "Spot",
    }
}

fn increase(quota: FargateQuota, vcpus: f64, region: &str) -> String {
    format!(
        "`aws service-quotas request-service-quota-increase --service-code fargate --quota-code {} --desired-value {} --region {region}`",
        quota.code(),
        vcpus.ceil(),
    )
}

#[cfg(test)]
mod tests {
    use aws::Refusal;

    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Unknown, Warning};

    fn judged(concurrent: usize, cpu: Option<u32>, on_demand: f64, spot: Option<f64>) -> Finding {
        let spot = spot.map(|value| (FargateQuota::Spot, Ok(value)));
        let quotas: Vec<_> = [(FargateQuota::OnDemand, Ok(on_demand))].into_iter().chain(spot).collect();
        judge(concurrent, "eu-west-1", cpu, &quotas)
    }

    #[test]
    fn jobs_at_once_must_fit_into_the_quotas() {
        let table = [
            (3, Some(2048), 6.0, None, Good, "room for 3 tasks of 2 vCPU"),
            (4, Some(2048), 6.0, None, Warning, "--quota-code L-3032A538 --desired-value 8 --region eu-west-1"),
            (4, Some(2048), 6.0, Some(2.0), Good, "6 vCPU on demand and 2 vCPU Spot"),
            (5, Some(2048), 6.0, Some(2.0), Warning, "--quota-code L-36FBB829 --desired-value 10"),
            // What is left of both together is room for none.
            (3, Some(4096), 6.0, Some(6.0), Warning, "room for 2 tasks"),
            (1, Some(8192), 6.0, None, Bad, "room for 0 tasks"),
            (24, Some(256), 6.0, None, Good, "0.25 vCPU"),
            (1, None, 6.0, None, Unknown, "not known"),
        ];
        for (concurrent, cpu, on_demand, spot, verdict, words) in table {
            let finding = judged(concurrent, cpu, on_demand, spot);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(format!("{} {}", finding.evidence, finding.fix).contains(words), "{finding:?}");
        }
    }

    #[test]
    fn a_quota_that_may_not_be_read_is_not_good() {
        let refusal = Refusal { code: "AccessDeniedException".into(), message: "no".into() };
        let quotas = [(FargateQuota::OnDemand, Ok(1000.0)), (FargateQuota::Spot, Err(CallError::Refused(refusal)))];
        let finding = judge(1, "eu-west-1", Some(256), &quotas);
        assert_eq!(finding.verdict, Unknown);
        assert!(finding.fix.contains("servicequotas:GetServiceQuota"), "{finding:?}");
    }
}
