//! What ECS says about a task definition.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{Compatibility, ContainerDefinition, NetworkMode, TaskDefinitionStatus};

use crate::errors::{CallError, Refusal};
use crate::session::Session;

/// A revision of a task definition as DescribeTaskDefinition has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskDefinition {
    pub arn: String,
    pub active: bool,
    /// It can run there, by ECS's own account.
    pub for_fargate: bool,
    pub awsvpc: bool,
    /// CPU units and MiB of the whole task.
    pub cpu: Option<u32>,
    pub memory: Option<u32>,
    /// `X86_64` or `ARM64`, which tasks get that name none; and `LINUX`, ….
    pub architecture: Option<String>,
    pub system: Option<String>,
    /// ARNs.
    pub execution_role: Option<String>,
    pub task_role: Option<String>,
    pub containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub ports: Vec<u16>,
    pub log: Option<LogDriver>,
    /// Where ECS takes its secrets from: ARNs, or names of SSM's parameters.
    pub secrets: Vec<String>,
}

/// Where a container's output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogDriver {
    /// `awslogs`, …
    pub name: String,
    pub options: BTreeMap<String, String>,
}

/// `family` (its newest active revision), `family:revision` or an ARN; none if ECS knows no such one. Needs
/// `ecs:DescribeTaskDefinition`.
pub async fn task_definition(session: &Session, name: &str) -> Result<Option<TaskDefinition>, CallError> {
    let ecs = session.ecs();
    let asked = || async {
        let answer = ecs.describe_task_definition().task_definition(name).send().await;
        answer.map_err(|error| CallError::of_sdk(&error))
    };
    let answer = match session.repeated(asked).await {
        // "Unable to describe task definition." The code alone is that of other refusals too.
        Err(CallError::Refused(refusal)) if is_not_there(&refusal) => return Ok(None),
        answer => answer?,
    };
    Ok(answer.task_definition().map(|definition| {
        let platform = definition.runtime_platform();
        TaskDefinition {
            arn: definition.task_definition_arn().unwrap_or_default().to_owned(),
            active: definition.status() == Some(&TaskDefinitionStatus::Active),
            for_fargate: definition.compatibilities().contains(&Compatibility::Fargate),
            awsvpc: definition.network_mode() == Some(&NetworkMode::Awsvpc),
            cpu: definition.cpu().and_then(|cpu| cpu.parse().ok()),
            memory: definition.memory().and_then(|memory| memory.parse().ok()),
            architecture: platform.and_then(|it| it.cpu_architecture()).map(|it| it.as_str().to_owned()),
            system: platform.and_then(|it| it.operating_system_family()).map(|it| it.as_str().to_owned()),
            execution_role: filled(definition.execution_role_arn()),
            task_role: filled(definition.task_role_arn()),
            containers: definition.container_definitions().iter().map(container).collect(),
        }
    }))
}

fn is_not_there(refusal: &Refusal) -> bool {
    refusal.code == "ClientException" && refusal.message.to_lowercase().contains("unable to describe task definition")
}

fn filled(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn container(definition: &ContainerDefinition) -> Container {
    let ports = definition.port_mappings().iter().filter_map(|mapping| mapping.container_port());
    Container {
        name: definition.name().unwrap_or_default().to_owned(),
        image: definition.image().unwrap_or_default().to_owned(),
        ports: ports.filter_map(|port| u16::try_from(port).ok()).collect(),
        log: definition.log_configuration().map(|log| LogDriver {
            name: log.log_driver().as_str().to_owned(),
            options: log.options().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        }),
        secrets: definition.secrets().iter().map(|secret| secret.value_from().to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_words_tell_that_a_definition_is_not_there() {
        let refusal = |code: &str, message: &str| Refusal { code: code.into(), message: message.into() };
        assert!(is_not_there(&refusal("ClientException", "Unable to describe task definition.")));
        assert!(!is_not_there(&refusal("ClientException", "Invalid revision number. Number: 99999999999")));
        assert!(!is_not_there(&refusal("AccessDeniedException", "Unable to describe task definition.")));
    }
}
