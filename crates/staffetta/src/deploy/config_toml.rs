//! The manager's `config.toml`, made from the deployment file.

use aws::stack::{Deployment, Environment, ManagerMode, token_variable};
use toml::Value;

/// The file for a manager of these environments. `security_group` says what stands for the group of an environment's
/// tasks: its id, or what CloudFormation will put there. Tokens are named, and stay in variables.
pub fn config_toml(
    deployment: &Deployment,
    environments: &[&Environment],
    security_group: &dyn Fn(&Environment) -> String,
) -> String {
    let mut text = format!("concurrent = {}\n", deployment.service.concurrent);
    for environment in environments {
        text.push_str(&runner(deployment, environment, security_group(environment)));
    }
    text
}

fn runner(deployment: &Deployment, environment: &Environment, security_group: String) -> String {
    let name = deployment.environment_name(environment);
    let mut text = format!(
        r#"
[[runners]]
name = {name}
url = {url}
token = "${token}"
executor = "fargate"

[runners.fargate]
cluster = {name}
region = {region}
subnets = {subnets}
security_groups = {security_groups}
task_definition = {name}
allowed_task_definitions = {allowed}
assign_public_ip = {public}
propagate_tags = true
capacity_providers = {providers}
"#,
        name = Value::from(name.as_str()),
        url = Value::from(deployment.gitlab_url.as_str()),
        token = token_variable(environment),
        region = Value::from(environment.place.region.as_str()),
        subnets = Value::from(environment.place.subnets.clone()),
        security_groups = Value::from(vec![security_group]),
        // A job may ask for an older revision, and for nobody else's definition.
        allowed = Value::from(vec![name.as_str()]),
        public = environment.place.assign_public_ip,
        providers = providers(environment),
    );
    // A manager of its own has the role as its task role.
    if !matches!(deployment.manager, ManagerMode::Each) {
        text.push_str(&format!("role_arn = {}\n", Value::from(deployment.manager_role_arn(environment))));
        if let Some(id) = &environment.external_id {
            text.push_str(&format!("external_id = {}\n", Value::from(id.as_str())));
        }
    }
    if environment.cache.is_some() {
        text.push_str(&format!(
            r#"
[runners.cache]
Type = "s3"
Shared = true

[runners.cache.s3]
BucketName = {bucket}
BucketLocation = {region}
"#,
            bucket = Value::from(deployment.cache_bucket(environment)),
            region = Value::from(environment.place.region.as_str()),
        ));
    }
    text
}

fn providers(environment: &Environment) -> Value {
    let table = |provider: &aws::fargate::CapacityProvider| {
        Value::Table(toml::Table::from_iter([
            ("name".to_owned(), Value::from(provider.name.as_str())),
            ("weight".to_owned(), Value::from(i64::from(provider.weight))),
            ("base".to_owned(), Value::from(i64::from(provider.base))),
        ]))
    };
    Value::Array(environment.capacity_providers.iter().map(table).collect())
}

#[cfg(test)]
mod tests {
    use aws::stack::manager_work;

    use super::*;
    use crate::config;
    use crate::deploy::file;

    /// Written and read as a manager does it.
    fn loaded(text: &str) -> config::Loaded {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.toml");
        let text = text.replace("\"$", "\"glrt-");
        crate::registration::new_version::NewVersion::of(&path)
            .and_then(|place| place.write(|_| Ok(text.clone())))
            .expect("a file");
        config::load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
    }

    fn all_of(deployment: &Deployment) -> String {
        let environments: Vec<_> = deployment.environments.iter().collect();
        config_toml(deployment, &environments, &|environment| format!("sg-{}", environment.name))
    }

    #[test]
    fn every_option_makes_a_file_that_a_manager_takes_without_a_word() {
        for text in file::tests::every_mode() {
            let deployment = &file::tests::usable(&text).deployment;
            let made = all_of(deployment);
            let config::Loaded { config, warnings } = loaded(&made);
            assert!(warnings.is_empty(), "{warnings:?} in\n{made}");
            assert_eq!(config.concurrent, deployment.service.concurrent as usize);
            assert_eq!(config.runners.len(), deployment.environments.len());
            for (runner, environment) in config.runners.iter().zip(&deployment.environments) {
                let name = deployment.environment_name(environment);
                assert_eq!(
                    (runner.name.as_str(), runner.url.as_str()),
                    (name.as_str(), deployment.gitlab_url.as_str())
                );
                let fargate = &runner.fargate;
                assert_eq!(
                    (fargate.cluster.as_str(), fargate.task_definition.as_str()),
                    (name.as_str(), name.as_str())
                );
                assert_eq!(fargate.allowed_task_definitions, Some(vec![name]));
                assert_eq!(fargate.region.as_deref(), Some(environment.place.region.as_str()));
                assert_eq!(fargate.subnets, environment.place.subnets);
                assert_eq!(fargate.security_groups, [format!("sg-{}", environment.name)]);
                assert_eq!(fargate.assign_public_ip, environment.place.assign_public_ip);
                // Without the one the other's permission would be for nothing, or the tags forbidden.
                assert!(fargate.propagate_tags && manager_work(deployment, environment).tags_tasks);
                assert_eq!(fargate.capacity_providers, environment.capacity_providers);
                let bucket = runner.cache.as_ref().map(|cache| cache.s3.bucket.clone());
                assert_eq!(bucket, environment.cache.as_ref().map(|_| deployment.cache_bucket(environment)));
                let taken = !matches!(deployment.manager, ManagerMode::Each);
                assert_eq!(fargate.role_arn, taken.then(|| deployment.manager_role_arn(environment)));
                assert_eq!(fargate.external_id, environment.external_id);
            }
        }
    }

    #[test]
    fn a_value_cannot_become_another_key() {
        let mut deployment = file::tests::dev("").deployment;
        let hostile = "x\"\nexecutor = \"shell\"\n[x]\ny = \"'''\\";
        deployment.gitlab_url = hostile.into();
        deployment.environments[0].place.subnets = vec![hostile.into()];
        let made: toml::Table = all_of(&deployment).parse().expect("TOML");
        let runner = &made["runners"][0];
        assert_eq!((runner["url"].as_str(), runner["executor"].as_str()), (Some(hostile), Some("fargate")));
        assert_eq!(runner["fargate"]["subnets"][0].as_str(), Some(hostile));
    }
}
