//! What CloudWatch Logs says about a log group.

use serde_json::json;

use crate::errors::CallError;
use crate::session::Session;

/// Whether there is a log group of this name; `session` must be of its region. Needs `logs:DescribeLogGroups`.
pub async fn log_group_exists(session: &Session, name: &str) -> Result<bool, CallError> {
    let mut question = json!({"logGroupNamePrefix": name});
    loop {
        let answer = session.json("logs", "Logs_20140328.DescribeLogGroups", question.clone()).await?;
        let groups = answer["logGroups"].as_array();
        if groups.is_some_and(|groups| groups.iter().any(|group| group["logGroupName"] == name)) {
            return Ok(true);
        }
        match answer["nextToken"].as_str() {
            Some(token) => question["nextToken"] = token.into(),
            None => return Ok(false),
        }
    }
}
