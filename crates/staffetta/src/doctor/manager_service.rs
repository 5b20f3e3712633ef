//! The manager that `deploy` runs as an ECS service: without it no job is taken, however healthy the rest is.

use aws::inspect::{self, Service};
use aws::stack::cloudformation::{Phase, StackRecord};
use aws::stack::{Deployment, Environment, ManagerOf};

use super::Finding;
use super::deployed::{open, stack};
use crate::deploy::apply::running;
use crate::deploy::ready::{self, Readiness};

pub const SERVICE: &str = "manager-service";

const BREAKS: &str = "Nobody takes jobs: they wait in GitLab.";

pub async fn check(deployment: &Deployment, environment: &Environment) -> Vec<Finding> {
    vec![look(deployment, environment).await.unwrap_or_else(|finding| Finding { check: SERVICE, ..finding })]
}

/// An error has the id of another check.
async fn look(deployment: &Deployment, environment: &Environment) -> Result<Finding, Finding> {
    let takes_jobs_of = |manager: &ManagerOf| {
        deployment.environments_of(*manager).iter().any(|environment_of| environment_of.name == environment.name)
    };
    let Some(manager) = deployment.managers().into_iter().find(takes_jobs_of) else {
        let evidence = "manager = \"own\": the manager is no service of this deployment";
        return Ok(Finding::skipped(
            SERVICE,
            evidence,
            "`staffetta verify` on its machine asks GitLab about its runners.",
        ));
    };
    let place = manager.place();
    let session = open(place).await?;
    let name = deployment.manager_name(manager);
    let record = stack(&session, &name).await?;
    if running(Some(&record)) == 0 {
        return Ok(waiting(&name, &ready::of_manager(deployment, manager, &session).await));
    }
    Ok(match inspect::service(&session, &name, &name).await {
        Ok(service) => {
            let there = There { name: &name, region: &place.region, log_group: &deployment.manager_log_group(manager) };
            judge(&there, &record, service.as_ref())
        }
        Err(error) => Finding::not_seen(SERVICE, "ecs:DescribeServices", &error),
    })
}

/// `apply` made all but the manager's task: it waits for what no stack brings.
fn waiting(name: &str, readiness: &Readiness) -> Finding {
    let what: Vec<_> = readiness.missing.iter().map(|missing| format!("{} is missing", missing.what)).collect();
    let why = [what, readiness.unseen.clone()].concat().join("; ");
    let commands = readiness.missing.iter().flat_map(|missing| &missing.commands).map(|command| format!("{command}\n"));
    Finding::bad(
        SERVICE,
        format!("{name} runs no manager, its DesiredCount is 0{}{why}", if why.is_empty() { "" } else { ": " }),
        BREAKS,
        format!("{}`staffetta deploy apply` starts it.", commands.collect::<String>()),
    )
}

/// Where the service is, for commands.
struct There<'a> {
    /// Of its cluster too.
    name: &'a str,
    region: &'a str,
    log_group: &'a str,
}

/// The stack is to have one manager.
fn judge(there: &There, record: &StackRecord, service: Option<&Service>) -> Finding {
    let There { name, region, log_group } = there;
    let bad = |evidence: String, fix: String| Finding::bad(SERVICE, evidence, BREAKS, fix);
    let Some(service) = service.filter(|service| service.status == "ACTIVE") else {
        let evidence = format!("the cluster {name} has no service {name}, which its stack has made");
        return bad(evidence, "Run `staffetta deploy destroy` and `staffetta deploy apply`.".to_owned());
    };
    if service.desired == 0 {
        let command =
            format!("`aws ecs update-service --cluster {name} --service {name} --desired-count 1 --region {region}`");
        return bad(format!("somebody has set the service {name} to 0 tasks"), command);
    }
    if service.running > 0 {
        let evidence = format!("{name} runs, {} of {}", service.running, service.desired);
        return match record.phase() {
            Phase::TakenBack => Finding::warning(
                SERVICE,
                format!("{evidence}; the last change of its stack failed and was taken back ({})", record.status),
                "The manager runs as it was before that change.",
                "`staffetta deploy apply` tries it again, and tells why it fails.",
            ),
            _ => Finding::good(SERVICE, evidence),
        };
    }
    let cause = cause(&service.events);
    if cause.is_none() && service.failed == 0 {
        return Finding::warning(
            SERVICE,
            format!("{name} is being started"),
            "Nobody takes jobs yet.",
            "Run doctor again in a minute.",
        );
    }
    let failed = if service.failed > 0 { format!(", {} tasks of it failed", service.failed) } else { String::new() };
    let cause = cause.map(|cause| format!("; ECS: {cause}")).unwrap_or_default();
    bad(
        format!("{name} does not run{failed}{cause}"),
        format!(
            "Its log and its last tasks tell why:\n\
             `aws logs tail {log_group} --since 1h --region {region}`\n\
             `aws ecs describe-tasks --cluster {name} --region {region} --query 'tasks[].[stoppedReason,containers[].reason]' \
             --tasks $(aws ecs list-tasks --cluster {name} --region {region} --desired-status STOPPED --query taskArns --output text)`"
        ),
    )
}

/// The newest of ECS's words that name a cause; otherwise the newest that tell of a failure.
fn cause(events: &[String]) -> Option<&String> {
    let has = |word: &'static str| move |event: &&String| event.contains(word);
    let of = |word| events.iter().find(has(word));
    of("Reason:").or_else(|| of("rror")).or_else(|| of("unable")).or_else(|| of("failed"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::doctor::Verdict::{self, Bad, Good, Warning};

    fn judged(status: &str, service: Service) -> (Verdict, String) {
        let there = There { name: "ci-dev-manager", region: "eu-west-1", log_group: "/staffetta/ci-dev-manager" };
        let record = StackRecord {
            id: "arn".into(),
            status: status.into(),
            reason: None,
            parameters: BTreeMap::new(),
            outputs: BTreeMap::new(),
            tags: BTreeMap::new(),
        };
        let finding = judge(&there, &record, Some(&service));
        (finding.verdict, finding.evidence)
    }

    fn service(running: u32, failed: u32, events: &[&str]) -> Service {
        let events = events.iter().map(|event| (*event).to_owned()).collect();
        Service { status: "ACTIVE".into(), desired: 1, running, failed, events }
    }

    #[test]
    fn a_manager_that_runs_is_good_and_one_that_just_starts_no_fault() {
        assert_eq!(judged("CREATE_COMPLETE", service(1, 0, &[])).0, Good);
        assert_eq!(judged("UPDATE_ROLLBACK_COMPLETE", service(1, 0, &[])).0, Warning);
        assert_eq!(
            judged("CREATE_COMPLETE", service(0, 0, &["(service x) has started 1 tasks: (task y)."])).0,
            Warning
        );
    }

    #[test]
    fn ecs_own_cause_is_told_before_what_follows_from_it() {
        let events = [
            "(service x) is unable to consistently start tasks successfully.",
            "(service x) was unable to place a task. Reason: You've reached the limit on the number of vCPUs.",
            "(service x) has started 1 tasks: (task y).",
        ];
        let (verdict, evidence) = judged("UPDATE_COMPLETE", service(0, 2, &events));
        assert_eq!(verdict, Bad);
        assert!(evidence.contains("2 tasks of it failed; ECS: (service x) was unable to place a task."), "{evidence}");
        let (verdict, evidence) = judged("UPDATE_COMPLETE", service(0, 0, &events[..1]));
        assert_eq!(verdict, Bad);
        assert!(evidence.contains("unable to consistently start"), "{evidence}");
        assert_eq!(judged("UPDATE_COMPLETE", service(0, 1, &[])).0, Bad);
    }
}
