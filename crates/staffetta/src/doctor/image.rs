//! The images of a task: whether they are there, and for the architecture that the task runs on.

use std::collections::BTreeSet;

use aws::inspect::{self, EcrImage, Stored, TaskDefinition};
use aws::stack::Architecture;
use aws::{CallError, Session};

use super::{Finding, Subject};

const IMAGE: &str = "task-image";
const ARCHITECTURE: &str = "task-architecture";

pub async fn check(subject: &Subject, session: &Session, definition: &TaskDefinition) -> Vec<Finding> {
    let images: BTreeSet<_> = definition.containers.iter().map(|container| container.image.as_str()).collect();
    let mut findings = vec![platform(subject.architecture, definition)];
    for image in images {
        let Some(in_ecr) = EcrImage::parse(image) else {
            findings.push(Finding::skipped(
                IMAGE,
                format!("{image} is not in the account's ECR, where doctor looks"),
                "`staffetta doctor --run` pulls it. Docker Hub limits pulls by address; ECR does not.",
            ));
            continue;
        };
        let stored = match session.in_region(&in_ecr.region) {
            Ok(session) => inspect::stored_image(&session, &in_ecr).await,
            Err(error) => {
                findings.push(Finding::bad(
                    IMAGE,
                    format!("{image}: {error}"),
                    NOT_PULLED,
                    "Correct the image's name.",
                ));
                continue;
            }
        };
        match stored {
            Ok(stored) => findings.extend(judge(image, &in_ecr, architecture(definition), &stored)),
            Err(error) => findings.push(Finding::not_seen(IMAGE, "ecr:BatchGetImage", &error)),
        }
    }
    findings
}

const NOT_PULLED: &str = "No job runs: tasks stop with CannotPullContainerError.";

/// What ECS runs it on; what names none is for X86_64.
fn architecture(definition: &TaskDefinition) -> &str {
    definition.architecture.as_deref().unwrap_or("X86_64")
}

/// As images name it.
fn of_image(architecture: &str) -> &str {
    if architecture == "ARM64" { "arm64" } else { "amd64" }
}

fn platform(wanted: Option<Architecture>, definition: &TaskDefinition) -> Finding {
    let has = architecture(definition);
    let system = definition.system.as_deref().unwrap_or("LINUX");
    let wanted = wanted.map(|wanted| match wanted {
        Architecture::X86_64 => "X86_64",
        Architecture::Arm64 => "ARM64",
    });
    if system != "LINUX" {
        let fix = "Register a revision whose runtimePlatform has operatingSystemFamily LINUX.";
        return Finding::bad(
            ARCHITECTURE,
            format!("tasks run on {system}"),
            "No job runs: the agent is for Linux.",
            fix,
        );
    }
    match wanted {
        Some(wanted) if wanted != has => Finding::warning(
            ARCHITECTURE,
            format!("tasks run on {has}; the deployment is for {wanted}"),
            "Jobs that need the one meet the other.",
            "Bring the task definition up to date: `staffetta deploy apply`.",
        ),
        _ => Finding::good(ARCHITECTURE, format!("tasks run on {system}/{has}")),
    }
}

fn judge(image: &str, in_ecr: &EcrImage, architecture: &str, stored: &Stored) -> Vec<Finding> {
    let EcrImage { account, region, repository, .. } = in_ecr;
    let platform = of_image(architecture);
    let push = format!("`docker buildx build --platform linux/{platform} --push -t {image} .`");
    let architectures = match stored {
        Stored::NoRepository => {
            let evidence = format!("account {account} has no repository {repository} in {region}");
            let create = format!("`aws ecr create-repository --repository-name {repository} --region {region}`");
            return vec![Finding::bad(IMAGE, evidence, NOT_PULLED, format!("{create}, then {push}"))];
        }
        Stored::NoImage => {
            let evidence = format!("repository {repository} in {region} has no image {}", in_ecr.reference);
            return vec![Finding::bad(IMAGE, evidence, NOT_PULLED, push)];
        }
        Stored::Image { architectures } => architectures,
    };
    let found = Finding::good(IMAGE, format!("{image} is in ECR"));
    let suits = match architectures {
        Ok(has) if has.iter().any(|one| one == platform) => {
            Finding::good(ARCHITECTURE, format!("{image} is for {}", has.join(" and ")))
        }
        Ok(has) => Finding::bad(
            ARCHITECTURE,
            format!(
                "{image} is for {}; tasks run on {architecture}",
                if has.is_empty() { "no Linux".to_owned() } else { has.join(" and ") }
            ),
            "No job runs: tasks stop with CannotPullContainerError, or with \"exec format error\".",
            format!("{push}, or let the task definition's runtimePlatform name the image's architecture."),
        ),
        Err(error) => unknown_architecture(image, error),
    };
    vec![found, suits]
}

fn unknown_architecture(image: &str, error: &CallError) -> Finding {
    let mut finding = Finding::not_seen(ARCHITECTURE, "ecr:GetDownloadUrlForLayer", error);
    finding.evidence = format!("{image} is for one architecture, and which is not seen: {}", finding.evidence);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{Bad, Good, Unknown, Warning};

    const NAME: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci-dev/task:v1";

    fn judged(architecture: &str, stored: &Stored) -> Vec<Finding> {
        judge(NAME, &EcrImage::parse(NAME).expect("one of ECR"), architecture, stored)
    }

    fn stored(architectures: &[&str]) -> Stored {
        Stored::Image { architectures: Ok(architectures.iter().map(|name| (*name).to_owned()).collect()) }
    }

    #[test]
    fn an_image_suits_what_the_task_runs_on() {
        for (architecture, has, verdict) in [
            ("X86_64", &["amd64"][..], Good),
            ("ARM64", &["amd64", "arm64"], Good),
            ("ARM64", &["amd64"], Bad),
            ("X86_64", &["arm64"], Bad),
            ("X86_64", &[], Bad),
        ] {
            let findings = judged(architecture, &stored(has));
            let seen: Vec<_> = findings.iter().map(|finding| (finding.check, finding.verdict)).collect();
            assert_eq!(seen, [(IMAGE, Good), (ARCHITECTURE, verdict)], "{architecture} {has:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_makes_it() {
        for (stored, words) in [
            (Stored::NoRepository, "create-repository --repository-name ci-dev/task --region eu-west-1"),
            (
                Stored::NoImage,
                "--platform linux/arm64 --push -t 123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci-dev/task:v1",
            ),
        ] {
            let findings = judged("ARM64", &stored);
            assert_eq!(findings.len(), 1);
            assert_eq!((findings[0].check, findings[0].verdict), (IMAGE, Bad));
            assert!(findings[0].fix.contains(words), "{}", findings[0].fix);
        }
    }

    #[test]
    fn an_architecture_that_is_not_seen_is_not_good() {
        let error = CallError::NoAnswer("S3 answers 403".into());
        let findings = judged("X86_64", &Stored::Image { architectures: Err(error) });
        assert_eq!((findings[0].verdict, findings[1].verdict), (Good, Unknown));
        assert!(findings[1].evidence.contains("S3 answers 403"), "{}", findings[1].evidence);
    }

    #[test]
    fn the_platform_is_linux_and_the_deployments() {
        let definition = |architecture: Option<&str>, system: Option<&str>| TaskDefinition {
            architecture: architecture.map(str::to_owned),
            system: system.map(str::to_owned),
            ..TaskDefinition::default()
        };
        for (wanted, architecture, system, verdict) in [
            (None, None, None, Good),
            (Some(Architecture::X86_64), None, Some("LINUX"), Good),
            (Some(Architecture::Arm64), Some("ARM64"), None, Good),
            (Some(Architecture::Arm64), None, None, Warning),
            (None, None, Some("WINDOWS_SERVER_2022_CORE"), Bad),
        ] {
            let finding = platform(wanted, &definition(architecture, system));
            assert_eq!(finding.verdict, verdict, "{finding:?}");
        }
    }
}
