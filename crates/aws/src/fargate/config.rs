//! The `[runners.fargate]` table: where the tasks of one runner run.

use serde::Deserialize;

use super::allowed::{is_role_arn, task_definition_pattern_mistake};
use crate::AssumedRole;

/// One environment as a runner reaches it. The field names are those of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FargateConfig {
    /// Name or ARN.
    pub cluster: String,
    /// Without it the environment decides, as for every AWS tool (`AWS_REGION`, the profile).
    pub region: Option<String>,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    /// `family` (its newest revision), `family:revision` or an ARN.
    pub task_definition: String,
    /// Gives the task a public address; needed in a public subnet without NAT.
    pub assign_public_ip: bool,
    /// Reach the task by its public address: for a manager outside the VPC.
    pub use_public_ip: bool,
    pub platform_version: Option<String>,
    /// Empty is on-demand Fargate. The first RunTask of a job sends them all, as a strategy; when there is no
    /// capacity, each is tried alone in this order. A weight of 0 makes a provider a fallback only.
    pub capacity_providers: Vec<CapacityProvider>,
    /// Another server than AWS's, for ECS and EC2 alike.
    pub endpoint_url: Option<String>,
    pub ssh_user: String,
    pub ssh_port: u16,
    /// Lets `aws ecs execute-command` into the task; its task role must allow it.
    pub enable_execute_command: bool,
    /// Gives the task the tags of its task definition, for the bill.
    pub propagate_tags: bool,
    /// Which task definitions a job may ask for beside `task_definition`, as patterns with `*`; none is every one.
    pub allowed_task_definitions: Option<Vec<String>>,
    /// The role that everything is done as in AWS for this runner; none is the manager itself.
    pub role_arn: Option<String>,
    /// What that role's trust policy asks for: 2 to 1224 characters, as STS has it.
    pub external_id: Option<String>,
    /// Not for the config file: secrets come from AWS's usual chain.
    #[serde(skip)]
    pub credentials: Credentials,
    /// Not for the config file: whoever connects makes it of `role_arn`, or of what a job asks for. All calls are made as this role.
    #[serde(skip)]
    pub role: Option<AssumedRole>,
}

/// One item of a capacity provider strategy: `FARGATE` or `FARGATE_SPOT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityProvider {
    pub name: String,
    /// ECS's own default is 0, which starts nothing when it stands alone.
    #[serde(default = "one")]
    pub weight: u16,
    #[serde(default)]
    pub base: u32,
}

/// Where the AWS credentials come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Environment, profile, web identity, container, instance.
    #[default]
    UsualChain,
    /// Requests are signed with a made-up key: for the embedded Fargate, which does not check it.
    MadeUp,
}

/// A value that ECS would refuse, found before any job meets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMistake {
    /// The key inside `[runners.fargate]`.
    pub key: &'static str,
    pub message: String,
}

fn one() -> u16 {
    1
}

impl Default for FargateConfig {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            region: None,
            subnets: Vec::new(),
            security_groups: Vec::new(),
            task_definition: String::new(),
            assign_public_ip: false,
            use_public_ip: false,
            platform_version: None,
            capacity_providers: Vec::new(),
            endpoint_url: None,
            ssh_user: "root".into(),
            ssh_port: 22,
            enable_execute_command: false,
            propagate_tags: false,
            allowed_task_definitions: None,
            role_arn: None,
            external_id: None,
            credentials: Credentials::UsualChain,
            role: None,
        }
    }
}

impl FargateConfig {
    /// The role of the runner; what CloudTrail shows of a session becomes a name that STS takes (2 to 64 of `[\w+=,.@-]`).
    pub fn runner_role(&self, session: &str) -> Option<AssumedRole> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        let session_name = session.chars().map(|c| if allowed(c) { c } else { '-' }).take(64).collect();
        let arn = self.role_arn.clone()?;
        Some(AssumedRole { arn, session_name, external_id: self.external_id.clone(), tags: Vec::new() })
    }

    /// All mistakes at once, in the order of the keys. The limits are ECS's (facts 1.1).
    pub fn mistakes(&self) -> Vec<ConfigMistake> {
        let mut mistakes = Vec::new();
        let mut check = |good: bool, key: &'static str, message: &str| {
            if !good {
                mistakes.push(ConfigMistake { key, message: message.to_owned() });
            }
        };
        check(!self.cluster.trim().is_empty(), "cluster", "must name the ECS cluster");
        check(!self.subnets.is_empty(), "subnets", "must name at least one subnet");
        if let Some(message) = subnets_mistake(&self.subnets) {
            check(false, "subnets", &message);
        }
        check(self.security_groups.len() <= 5, "security_groups", "may name at most 5 security groups");
        check(!self.task_definition.trim().is_empty(), "task_definition", "must name a task definition");
        check(
            self.assign_public_ip || !self.use_public_ip,
            "use_public_ip",
            "asks for a public address, but tasks are not given any: set both or none",
        );
        let providers = &self.capacity_providers;
        check(providers.len() <= 20, "capacity_providers", "may name at most 20 providers");
        check(
            providers.is_empty() || providers.iter().any(|provider| provider.weight > 0),
            "capacity_providers",
            "needs one provider or more with a weight above 0",
        );
        check(
            providers.iter().all(|provider| provider.weight <= 1000 && provider.base <= 100_000),
            "capacity_providers",
            "may give a weight of at most 1000 and a base of at most 100000",
        );
        check(
            providers.iter().filter(|provider| provider.base > 0).count() <= 1,
            "capacity_providers",
            "may give only one provider a base",
        );
        for pattern in self.allowed_task_definitions.iter().flatten() {
            if let Some(message) = task_definition_pattern_mistake(pattern) {
                check(false, "allowed_task_definitions", &message);
            }
        }
        check(
            self.role_arn.as_deref().is_none_or(is_role_arn),
            "role_arn",
            "must be the ARN of a role, such as \"arn:aws:iam::111122223333:role/ci-dev-manager\"",
        );
        if let Some(external_id) = &self.external_id {
            check(self.role_arn.is_some(), "external_id", "belongs to role_arn, which is not given");
            if let Some(message) = external_id_mistake(external_id) {
                check(false, "external_id", message);
            }
        }
        check(!self.ssh_user.trim().is_empty(), "ssh_user", "must not be empty");
        check(self.ssh_port != 0, "ssh_port", "must not be 0");
        mistakes
    }
}

/// What STS does not take as an external id (AssumeRole).
pub fn external_id_mistake(id: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
    let good = (2..=1224).contains(&id.len()) && id.chars().all(fits);
    (!good).then_some("must have 2 to 1224 letters, digits and characters of _+=,.@:/-")
}

/// What ECS does not take as a task's subnets (facts 1.1).
pub fn subnets_mistake(subnets: &[String]) -> Option<String> {
    (subnets.len() > 16).then(|| format!("has {}: a task may choose from at most 16", subnets.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FargateConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn usable() -> FargateConfig {
        FargateConfig {
            cluster: "ci-dev".into(),
            subnets: vec!["subnet-1".into()],
            task_definition: "ci-dev".into(),
            ..FargateConfig::default()
        }
    }

    #[test]
    fn every_key_of_the_table_is_read() {
        let config = read(
            r#"
            cluster = "ci-dev"
            region = "eu-west-1"
            subnets = ["subnet-1", "subnet-2"]
            security_groups = ["sg-1"]
            task_definition = "ci-dev:3"
            assign_public_ip = true
            use_public_ip = true
            platform_version = "1.4.0"
            capacity_providers = [{ name = "FARGATE_SPOT", weight = 4 }, { name = "FARGATE", weight = 0, base = 1 }]
            endpoint_url = "http://127.0.0.1:1"
            ssh_user = "ci"
            ssh_port = 2222
            enable_execute_command = true
            propagate_tags = true
            allowed_task_definitions = ["ci-*"]
            role_arn = "arn:aws:iam::111122223333:role/ci-dev-manager"
            external_id = "staffetta/dev"
            "#,
        )
        .expect("all keys");
        let expected = FargateConfig {
            cluster: "ci-dev".into(),
            region: Some("eu-west-1".into()),
            subnets: vec!["subnet-1".into(), "subnet-2".into()],
            security_groups: vec!["sg-1".into()],
            task_definition: "ci-dev:3".into(),
            assign_public_ip: true,
            use_public_ip: true,
            platform_version: Some("1.4.0".into()),
            capacity_providers: vec![
                CapacityProvider { name: "FARGATE_SPOT".into(), weight: 4, base: 0 },
                CapacityProvider { name: "FARGATE".into(), weight: 0, base: 1 },
            ],
            endpoint_url: Some("http://127.0.0.1:1".into()),
            ssh_user: "ci".into(),
            ssh_port: 2222,
            enable_execute_command: true,
            propagate_tags: true,
            allowed_task_definitions: Some(vec!["ci-*".into()]),
            role_arn: Some("arn:aws:iam::111122223333:role/ci-dev-manager".into()),
            external_id: Some("staffetta/dev".into()),
            credentials: Credentials::UsualChain,
            role: None,
        };
        assert_eq!(config, expected);
        assert_eq!(config.mistakes(), []);
    }

    #[test]
    fn a_provider_without_a_weight_is_used() {
        let config = read(r#"capacity_providers = [{ name = "FARGATE_SPOT" }]"#).expect("a provider");
        assert_eq!(config.capacity_providers[0].weight, 1);
    }

    #[test]
    fn unknown_keys_are_refused_by_name_and_credentials_are_no_key() {
        for text in [
            "clusterr = 'a'",
            "credentials = 'MadeUp'",
            "role = {}",
            "capacity_providers = [{ name = 'F', wieght = 1 }]",
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let config = FargateConfig {
            use_public_ip: true,
            capacity_providers: vec![CapacityProvider { name: "FARGATE".into(), weight: 0, base: 0 }],
            ..FargateConfig::default()
        };
        let keys: Vec<_> = config.mistakes().into_iter().map(|mistake| mistake.key).collect();
        assert_eq!(keys, ["cluster", "subnets", "task_definition", "use_public_ip", "capacity_providers"]);
        assert_eq!(usable().mistakes(), []);
    }

    #[test]
    fn a_role_is_one_and_an_external_id_belongs_to_it() {
        let role = "arn:aws-cn:iam::111122223333:role/ci/dev-manager";
        for (role_arn, external_id, keys) in [
            (Some(role), None, &[][..]),
            (Some(role), Some("ab"), &[]),
            (Some(role), Some("_+=,.@:/-9Z"), &[]),
            (Some("ci-dev-manager"), None, &["role_arn"]),
            (Some("arn:aws:iam::111122223333:role/*"), None, &["role_arn"]),
            (Some("arn:aws:iam::1:role/ci"), None, &["role_arn"]),
            (Some("arn:aws:iam::111122223333:user/ci"), None, &["role_arn"]),
            (Some(role), Some("a"), &["external_id"]),
            (Some(role), Some("a b"), &["external_id"]),
            (None, Some("é"), &["external_id", "external_id"]),
        ] {
            let (role_arn, external_id) = (role_arn.map(str::to_owned), external_id.map(str::to_owned));
            let config = FargateConfig { role_arn, external_id, ..usable() };
            let found: Vec<_> = config.mistakes().into_iter().map(|mistake| mistake.key).collect();
            assert_eq!(found, keys, "{config:?}");
        }
        let long = FargateConfig { role_arn: Some(role.into()), external_id: Some("x".repeat(1225)), ..usable() };
        assert_eq!(long.mistakes().len(), 1);
    }

    #[test]
    fn a_session_has_a_name_that_sts_takes() {
        let config = FargateConfig { role_arn: Some("arn".into()), external_id: Some("id".into()), ..usable() };
        let role = config.runner_role("staffetta.s_1.dev runner ä").expect("a role");
        assert_eq!(
            (role.session_name.as_str(), role.external_id.as_deref()),
            ("staffetta.s_1.dev-runner--", Some("id"))
        );
        assert_eq!(config.runner_role(&"x".repeat(65)).expect("a role").session_name.len(), 64);
        assert_eq!(usable().runner_role("s"), None);
    }

    #[test]
    fn ecs_limits_are_held() {
        let many = |count: usize| vec!["x".to_owned(); count];
        let two_bases =
            ["FARGATE", "FARGATE_SPOT"].map(|name| CapacityProvider { name: name.into(), weight: 1, base: 1 }).to_vec();
        for (config, key) in [
            (FargateConfig { subnets: many(17), ..usable() }, "subnets"),
            (FargateConfig { security_groups: many(6), ..usable() }, "security_groups"),
            (FargateConfig { capacity_providers: two_bases, ..usable() }, "capacity_providers"),
            (FargateConfig { ssh_port: 0, ..usable() }, "ssh_port"),
        ] {
            let mistakes = config.mistakes();
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
            assert_eq!(mistakes[0].key, key);
        }
    }
}
