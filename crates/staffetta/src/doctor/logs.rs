//! Where the output of a task goes.

use std::collections::BTreeSet;

use aws::Session;
use aws::inspect::{self, TaskDefinition};

use super::Finding;

const LOG: &str = "task-log";

/// A log group that a container writes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LogGroup {
    name: String,
    region: String,
    /// ECS makes it, if the execution role may.
    is_made: bool,
}

pub async fn check(session: &Session, definition: &TaskDefinition) -> Vec<Finding> {
    let (groups, mut findings) = log_groups(session.region(), definition);
    for group in groups {
        let exists = match session.in_region(&group.region) {
            Ok(session) => inspect::log_group_exists(&session, &group.name).await,
            Err(error) => {
                let fix = "Correct awslogs-region of the container's log configuration.";
                findings.push(Finding::bad(LOG, error.to_string(), NO_LOG, fix));
                continue;
            }
        };
        findings.push(match exists {
            Ok(exists) => log_group(&group, exists),
            Err(error) => Finding::not_seen(LOG, "logs:DescribeLogGroups", &error),
        });
    }
    findings
}

const NO_LOG: &str = "No task starts: \"ResourceInitializationError: failed to initialize logging driver\".";

/// The groups that must be there, and what is to be said about the rest.
fn log_groups(region: &str, definition: &TaskDefinition) -> (BTreeSet<LogGroup>, Vec<Finding>) {
    let (mut groups, mut findings) = (BTreeSet::new(), Vec::new());
    for container in &definition.containers {
        let name = &container.name;
        let Some(log) = &container.log else {
            findings.push(Finding::good(LOG, format!("{name} keeps no log; those of jobs are in GitLab")));
            continue;
        };
        if log.name != "awslogs" {
            let evidence = format!("{name} logs to {}, which doctor does not know", log.name);
            findings.push(Finding::skipped(LOG, evidence, "`staffetta doctor --run` starts a task with it."));
            continue;
        }
        let missing: Vec<_> = ["awslogs-group", "awslogs-region", "awslogs-stream-prefix"]
            .into_iter()
            .filter(|key| log.options.get(*key).is_none_or(String::is_empty))
            .collect();
        if let (Some(group), Some(its_region), []) =
            (log.options.get("awslogs-group"), log.options.get("awslogs-region"), &missing[..])
        {
            if its_region != region {
                findings.push(Finding::warning(
                    LOG,
                    format!("{name} logs to {its_region}; its tasks run in {region}"),
                    "Each line pays for its way to the other region, and is missing where one looks for it.",
                    format!("Register a revision with awslogs-region {region}."),
                ));
            }
            groups.insert(LogGroup {
                name: group.clone(),
                region: its_region.clone(),
                is_made: log.options.get("awslogs-create-group").is_some_and(|value| value == "true"),
            });
        } else {
            findings.push(Finding::bad(
                LOG,
                format!("the log configuration of {name} has no {}", missing.join(" and no ")),
                NO_LOG,
                "Register a revision with these options: Fargate needs all three.",
            ));
        }
    }
    (groups, findings)
}

fn log_group(group: &LogGroup, exists: bool) -> Finding {
    let LogGroup { name, region, is_made } = group;
    match (exists, is_made) {
        (true, _) => Finding::good(LOG, format!("log group {name} is there in {region}")),
        (false, true) => Finding::good(LOG, format!("log group {name} is made in {region} by the first task")),
        (false, false) => Finding::bad(
            LOG,
            format!("log group {name} is not there in {region}"),
            NO_LOG,
            format!("`aws logs create-log-group --log-group-name {name} --region {region}`"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use aws::inspect::{Container, LogDriver};

    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Skipped, Warning};

    fn logging(name: &str, options: &[(&str, &str)]) -> TaskDefinition {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let log = LogDriver { name: name.into(), options };
        let container = Container { name: "ci-coordinator".into(), log: Some(log), ..Container::default() };
        TaskDefinition { containers: vec![container], ..TaskDefinition::default() }
    }

    const WHOLE: [(&str, &str); 3] =
        [("awslogs-group", "/staffetta/ci-dev"), ("awslogs-region", "eu-west-1"), ("awslogs-stream-prefix", "task")];

    #[test]
    fn a_group_of_the_same_region_has_only_to_be_there() {
        let (groups, findings) = log_groups("eu-west-1", &logging("awslogs", &WHOLE));
        assert_eq!(findings, []);
        let group = LogGroup { name: "/staffetta/ci-dev".into(), region: "eu-west-1".into(), is_made: false };
        assert_eq!(groups, BTreeSet::from([group.clone()]));
        assert_eq!(log_group(&group, true).verdict, Good);
        let missing = log_group(&group, false);
        assert_eq!(missing.verdict, Bad);
        assert_eq!(missing.fix, "`aws logs create-log-group --log-group-name /staffetta/ci-dev --region eu-west-1`");
        assert_eq!(log_group(&LogGroup { is_made: true, ..group }, false).verdict, Good);
    }

    #[test]
    fn each_fault_of_a_log_configuration_is_named() {
        for (definition, verdict, words, groups) in [
            (logging("awslogs", &WHOLE[..2]), Bad, "has no awslogs-stream-prefix", 0),
            (logging("awslogs", &[]), Bad, "no awslogs-group and no awslogs-region", 0),
            (
                logging("awslogs", &[WHOLE[0], ("awslogs-region", "us-east-1"), WHOLE[2]]),
                Warning,
                "logs to us-east-1",
                1,
            ),
            (logging("splunk", &[]), Skipped, "splunk", 0),
        ] {
            let (found, findings) = log_groups("eu-west-1", &definition);
            assert_eq!((found.len(), findings.len()), (groups, 1), "{findings:?}");
            assert_eq!(findings[0].verdict, verdict);
            assert!(findings[0].evidence.contains(words), "{}", findings[0].evidence);
        }
    }

    #[test]
    fn a_container_without_a_log_is_good() {
        let definition = TaskDefinition { containers: vec![Container::default()], ..TaskDefinition::default() };
        let (groups, findings) = log_groups("eu-west-1", &definition);
        assert!(groups.is_empty() && findings.len() == 1 && findings[0].verdict == Good);
    }
}
