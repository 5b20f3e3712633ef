//! The task definition: what Fargate and the job's container need of it.

use aws::CallError;
use aws::inspect::TaskDefinition;
use job::task::CONTAINER;

use super::Finding;
use super::finding::MADE_ANEW;
use crate::deploy::file::is_fargate_size;

const DEFINITION: &str = "task-definition";
const SIZE: &str = "task-size";
const IN_DEFINITION: &str = "task-container";

/// Whether there is one that can be run; only then the other checks have something to look at.
pub fn usable<'d>(
    name: &str,
    region: &str,
    definition: &'d Result<Option<TaskDefinition>, CallError>,
) -> Result<&'d TaskDefinition, Finding> {
    let breaks = "Every job fails: RunTask is refused.";
    match definition {
        Err(error) => Err(Finding::not_seen(DEFINITION, "ecs:DescribeTaskDefinition", error)),
        Ok(None) => Err(Finding::bad(
            DEFINITION,
            format!("{name} is not there in {region}"),
            breaks,
            format!(
                "Correct task_definition in [runners.fargate] (TaskDefinition in ecs.toml), or register it under this name; or, {MADE_ANEW}."
            ),
        )),
        Ok(Some(definition)) if !definition.active => Err(Finding::bad(
            DEFINITION,
            format!("{} was deregistered", short(&definition.arn)),
            breaks,
            format!(
                "Name the family without a revision, which is its newest active one, or register it anew under this name; or, {MADE_ANEW}."
            ),
        )),
        Ok(Some(definition)) => Ok(definition),
    }
}

pub fn check(ssh_port: u16, definition: &TaskDefinition) -> Vec<Finding> {
    vec![fits_fargate(definition), size(definition), container(ssh_port, definition)]
}

/// `ci-dev:3` of the ARN.
pub fn short(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

fn fits_fargate(definition: &TaskDefinition) -> Finding {
    let mut lacks = Vec::new();
    if !definition.awsvpc {
        lacks.push("networkMode awsvpc");
    }
    if !definition.for_fargate {
        lacks.push("FARGATE among its compatibilities");
    }
    let name = short(&definition.arn);
    if lacks.is_empty() {
        return Finding::good(DEFINITION, format!("{name} is ACTIVE, for FARGATE and awsvpc"));
    }
    Finding::bad(
        DEFINITION,
        format!("{name} does not have {}", lacks.join(" and ")),
        "Every job fails: RunTask refuses to start it on Fargate.",
        format!(
            "Register a revision with networkMode awsvpc and requiresCompatibilities FARGATE; or, if it stands over that of a stack, \
             take it back: `aws ecs deregister-task-definition --task-definition {name}`."
        ),
    )
}

fn size(definition: &TaskDefinition) -> Finding {
    let breaks = "Every job fails: ECS answers \"No Fargate configuration exists for given values\".";
    let fix = "Register a revision with a pair that Fargate offers, such as cpu 1024 and memory 2048.";
    match (definition.cpu, definition.memory) {
        (Some(cpu), Some(memory)) if is_fargate_size(cpu, memory) => {
            Finding::good(SIZE, format!("cpu {cpu}, memory {memory} MiB"))
        }
        (Some(cpu), Some(memory)) => {
            Finding::bad(SIZE, format!("cpu {cpu} does not go with memory {memory} MiB"), breaks, fix)
        }
        _ => Finding::bad(SIZE, "the task has no cpu or no memory of its own", breaks, fix),
    }
}

fn container(port: u16, definition: &TaskDefinition) -> Finding {
    let Some(container) = definition.containers.iter().find(|container| container.name == CONTAINER) else {
        let names: Vec<_> = definition.containers.iter().map(|container| container.name.as_str()).collect();
        return Finding::bad(
            IN_DEFINITION,
            format!("{} has no container {CONTAINER}, only {}", short(&definition.arn), names.join(" and ")),
            format!(
                "Every job fails: \"Override for container named {CONTAINER} is not a container in the TaskDefinition\"."
            ),
            format!("Register a revision whose container for jobs is called {CONTAINER}."),
        );
    };
    if container.ports.contains(&port) {
        return Finding::good(IN_DEFINITION, format!("{CONTAINER} has port {port}"));
    }
    // With awsvpc all ports of a task are its own, declared or not.
    Finding::warning(
        IN_DEFINITION,
        match container.ports[..] {
            [] => format!("{CONTAINER} declares no port, not even {port}"),
            _ => format!("{CONTAINER} declares {:?} and not {port}", container.ports),
        },
        format!(
            "Fargate lets the manager in all the same, if the image's SSH server listens on port {port}; likely it does not."
        ),
        format!(
            "Register a revision whose {CONTAINER} has portMappings [{{\"containerPort\": {port}, \"protocol\": \"tcp\"}}], or \
             set ssh_port in [runners.fargate] (Port in ecs.toml) to the image's port."
        ),
    )
}

#[cfg(test)]
mod tests {
    use aws::Refusal;
    use aws::inspect::Container;

    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Unknown, Warning};

    fn healthy() -> TaskDefinition {
        TaskDefinition {
            arn: "arn:aws:ecs:eu-west-1:123456789012:task-definition/ci-dev:3".into(),
            active: true,
            for_fargate: true,
            awsvpc: true,
            cpu: Some(1024),
            memory: Some(2048),
            containers: vec![
                Container { name: "aws-guardduty-agent".into(), ..Container::default() },
                Container { name: CONTAINER.into(), ports: vec![80, 22], ..Container::default() },
            ],
            ..TaskDefinition::default()
        }
    }

    #[test]
    fn a_healthy_definition_is_good_by_each_check() {
        let seen: Vec<_> = check(22, &healthy()).iter().map(|finding| (finding.check, finding.verdict)).collect();
        assert_eq!(seen, [(DEFINITION, Good), (SIZE, Good), (IN_DEFINITION, Good)]);
    }

    #[test]
    fn each_fault_is_its_own_finding() {
        let renamed = |name: &str, ports: &[u16]| {
            vec![Container { name: name.into(), ports: ports.to_vec(), ..Container::default() }]
        };
        for (definition, check_id, verdict, words) in [
            (
                TaskDefinition { awsvpc: false, ..healthy() },
                DEFINITION,
                Bad,
                "ci-dev:3 does not have networkMode awsvpc",
            ),
            (TaskDefinition { for_fargate: false, ..healthy() }, DEFINITION, Bad, "FARGATE among its compatibilities"),
            (
                TaskDefinition { memory: Some(1024), ..healthy() },
                SIZE,
                Bad,
                "cpu 1024 does not go with memory 1024 MiB",
            ),
            (TaskDefinition { cpu: None, ..healthy() }, SIZE, Bad, "no cpu"),
            (
                TaskDefinition { containers: renamed("ci", &[22]), ..healthy() },
                IN_DEFINITION,
                Bad,
                "no container ci-coordinator, only ci",
            ),
            (
                TaskDefinition { containers: renamed(CONTAINER, &[]), ..healthy() },
                IN_DEFINITION,
                Warning,
                "declares no port, not even 22",
            ),
            (
                TaskDefinition { containers: renamed(CONTAINER, &[2222]), ..healthy() },
                IN_DEFINITION,
                Warning,
                "[2222] and not 22",
            ),
        ] {
            let findings = check(22, &definition);
            let wrong: Vec<_> = findings.iter().filter(|finding| finding.verdict != Good).collect();
            assert_eq!(wrong.len(), 1, "{findings:?}");
            assert_eq!((wrong[0].check, wrong[0].verdict), (check_id, verdict));
            assert!(wrong[0].evidence.contains(words), "{}", wrong[0].evidence);
            assert!(!wrong[0].breaks.is_empty() && !wrong[0].fix.is_empty());
        }
    }

    #[test]
    fn without_an_active_definition_nothing_else_is_looked_at() {
        let denied = CallError::Refused(Refusal { code: "AccessDeniedException".into(), message: "no".into() });
        let inactive = TaskDefinition { active: false, ..healthy() };
        for (seen, verdict, words) in [
            (Err(denied), Unknown, "ecs:DescribeTaskDefinition"),
            (Ok(None), Bad, "ci-dev is not there in eu-west-1"),
            (Ok(Some(inactive)), Bad, "ci-dev:3 was deregistered"),
        ] {
            let finding = usable("ci-dev", "eu-west-1", &seen).expect_err(words);
            assert_eq!((finding.check, finding.verdict), (DEFINITION, verdict));
            assert!(finding.evidence.contains(words), "{}", finding.evidence);
        }
        assert!(usable("ci-dev", "eu-west-1", &Ok(Some(healthy()))).is_ok());
    }
}
