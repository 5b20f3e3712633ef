//! cfn-lint, AWS's own judge of templates, on every template that the options can make; and what it does not look at.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::options::{every_option, resources, stacks_of};

#[test]
fn every_template_that_the_options_can_make_passes_cfn_lint_without_a_warning() {
    let lint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cfn-lint/bin/cfn-lint");
    assert!(lint.is_file(), "{} is not there: run scripts/install-cfn-lint", lint.display());
    let folder = tempfile::tempdir().expect("a folder");
    let mut templates = HashSet::new();
    for (option, deployment) in every_option() {
        for stack in stacks_of(&deployment) {
            let template = stack.template.to_string();
            // Its findings are by file, so the file says what made it.
            let file = folder.path().join(format!("{option} - {}.json", stack.name));
            if templates.insert(template.clone()) {
                std::fs::write(file, template).expect("a file");
            }
        }
    }
    assert!(templates.len() > 40, "{} templates", templates.len());
    let mut command = Command::new(lint);
    command.args(["--format", "json", "--template"]).arg(folder.path().join("*.json"));
    let output = command.output().expect("cfn-lint runs");
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", output.status, String::from_utf8_lossy(&output.stderr)));
    let told: Vec<_> = findings
        .iter()
        .map(|it| format!("{}: {} {} {}", it["Filename"], it["Rule"]["Id"], it["Location"]["Path"], it["Message"]))
        .collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// Facts 5.4: Fargate refuses them when the definition is registered, and cfn-lint says nothing.
#[test]
fn no_task_asks_for_what_fargate_does_not_have() {
    const REFUSED: [&str; 8] = [
        "Privileged",
        "ExtraHosts",
        "DnsServers",
        "DnsSearchDomains",
        "DockerSecurityOptions",
        "Links",
        "DisableNetworking",
        "ResourceRequirements",
    ];
    for (option, deployment) in every_option() {
        for stack in stacks_of(&deployment) {
            for (_, definition) in resources(&stack.template, "AWS::ECS::TaskDefinition") {
                assert_eq!((&definition["IpcMode"], &definition["PlacementConstraints"]), (&Value::Null, &Value::Null));
                let containers = definition["ContainerDefinitions"].as_array().expect("containers");
                for container in containers {
                    for key in REFUSED {
                        assert_eq!(container[key], Value::Null, "{option}: {key} of {}", stack.name);
                    }
                    assert_eq!(container["LinuxParameters"]["Capabilities"]["Add"], Value::Null);
                }
            }
        }
    }
}

/// Sizes that CloudFormation and IAM refuse beyond, for ten environments of one shared manager with long names.
#[test]
fn ten_environments_of_one_manager_stay_within_the_limits() {
    use crate::options::{environment, shared};
    let mut deployment = shared();
    deployment.name = "a".repeat(20);
    let names = (0..10).map(|number| format!("{}{number}", "e".repeat(19)));
    deployment.environments = names.map(|name| environment(&name)).collect();
    for environment in &mut deployment.environments {
        environment.cache = Some(aws::stack::CacheBucket { expire_days: 1 });
    }
    for stack in stacks_of(&deployment) {
        let size = stack.template.to_string().len();
        assert!(
            size <= 40_000,
            "{}: {size} of the 51,200 bytes that go with a call, and config.toml is longer than here",
            stack.name
        );
        let entries = |section: &str| stack.template[section].as_object().map_or(0, serde_json::Map::len);
        assert!(entries("Parameters") <= 200 && entries("Outputs") <= 200 && entries("Resources") <= 500);
        for (id, role) in resources(&stack.template, "AWS::IAM::Role") {
            assert!(role["RoleName"].as_str().is_some_and(|name| name.len() <= 64), "{id}");
            let policies = role["Policies"].as_array().map_or(0, |policies| json!(policies).to_string().len());
            assert!(policies <= 10_240, "{id} of {}: {policies} characters of policies", stack.name);
        }
        for (_, repository) in resources(&stack.template, "AWS::ECR::Repository") {
            let name = repository["RepositoryName"].as_str().expect("a name");
            assert!((2..=256).contains(&name.len()), "{name}");
        }
    }
}
