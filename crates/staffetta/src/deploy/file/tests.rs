//! What a deployment file says, and what its writer is told.

use std::path::Path;

use aws::stack::{Architecture, JobRole, ManagerMode, RunnerToken};

use super::*;

const HEAD: &str = r#"name = "ci"
gitlab_url = "https://gitlab.example.com"
account = "123456789012"
region = "eu-west-1"
"#;
const DEV: &str = r#"[environments.dev]
vpc = "vpc-1"
subnets = ["subnet-1", "subnet-2"]
"#;

fn file(more: &str) -> Result<Loaded, Mistakes> {
    read(Path::new("staffetta.toml"), more)
}

fn usable(text: &str) -> Loaded {
    file(text).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

/// With these lines in the table of `dev`.
fn dev(more: &str) -> Loaded {
    usable(&format!("{HEAD}{DEV}{more}"))
}

fn refused(text: &str) -> String {
    file(text).map(|_| ()).expect_err(text).to_string()
}

#[track_caller]
fn dev_is_refused(more: &str, why: &str) {
    let mistakes = refused(&format!("{HEAD}{DEV}{more}"));
    assert!(mistakes.contains(why), "{mistakes}");
    assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
}

#[test]
fn a_short_file_gets_every_default() {
    let Loaded { deployment, runner_scope, warnings } = dev("");
    assert!(warnings.is_empty() && runner_scope.is_none());
    assert!(matches!(deployment.manager, ManagerMode::Each));
    assert_eq!((deployment.service.cpu, deployment.service.memory, deployment.service.concurrent), (256, 512, 10));
    let [dev] = &deployment.environments[..] else { panic!("one environment") };
    assert_eq!((dev.place.account.as_str(), dev.place.region.as_str()), ("123456789012", "eu-west-1"));
    assert_eq!((&dev.runner_tags[..], dev.cpu, dev.memory), (&["dev".to_owned()][..], 1024, 2048));
    assert_eq!((dev.architecture, dev.log_retention_days), (Architecture::X86_64, 30));
    assert_eq!(dev.runner_token, RunnerToken::Made);
    assert!(matches!(&dev.job_role, JobRole::Made { policies, inline: None } if policies.is_empty()));
    assert_eq!(dev.capacity_providers[0].name, "FARGATE");
}
