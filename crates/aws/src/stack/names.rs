//! What things are called. All names follow from the file, so a policy can name exactly what it is for, and nobody types an ARN.

use super::deployment::{Deployment, Environment, JobRole, ManagerMode, Place, RunnerToken};

/// `aws`, `aws-cn` or `aws-us-gov`.
pub fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("us-gov-") => "aws-us-gov",
        region if region.starts_with("cn-") => "aws-cn",
        _ => "aws",
    }
}

/// The ARN of something in an account and region: `resource` is `cluster/ci-dev`.
pub fn arn(place: &Place, service: &str, resource: &str) -> String {
    let partition = partition(&place.region);
    match service {
        "iam" => format!("arn:{partition}:iam::{}:{resource}", place.account),
        "s3" => format!("arn:{partition}:s3:::{resource}"),
        _ => format!("arn:{partition}:{service}:{}:{}:{resource}", place.region, place.account),
    }
}

fn role_arn(place: &Place, name: &str) -> String {
    arn(place, "iam", &format!("role/{name}"))
}

/// The host of ECR in an account and region.
fn registry(place: &Place) -> String {
    let domain = if partition(&place.region) == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("{}.dkr.ecr.{}.{domain}", place.account, place.region)
}

/// The manager of one environment, or of all.
#[derive(Debug, Clone, Copy)]
pub enum ManagerOf<'a> {
    One(&'a Environment),
    All(&'a Place),
}

impl ManagerOf<'_> {
    pub fn place(&self) -> &Place {
        match self {
            Self::One(environment) => &environment.place,
            Self::All(place) => place,
        }
    }
}

impl Deployment {
    /// The managers that run as ECS services here.
    pub fn managers(&self) -> Vec<ManagerOf<'_>> {
        match &self.manager {
            ManagerMode::Each => self.environments.iter().map(ManagerOf::One).collect(),
            ManagerMode::Shared(place) => vec![ManagerOf::All(place)],
            ManagerMode::Own { .. } => Vec::new(),
        }
    }

    /// `ci-dev`: the environment's stack, its cluster, its family of task definitions.
    pub fn environment_name(&self, environment: &Environment) -> String {
        format!("{}-{}", self.name, environment.name)
    }

    /// `ci-dev-manager` or `ci-manager`: the manager's stack, cluster, service and task definition.
    pub fn manager_name(&self, manager: ManagerOf) -> String {
        match manager {
            ManagerOf::One(environment) => format!("{}-{}-manager", self.name, environment.name),
            ManagerOf::All(_) => format!("{}-manager", self.name),
        }
    }

    /// `ci-manager-access`: the stack of what the environments let in of a shared manager.
    pub fn manager_access_name(&self) -> String {
        format!("{}-manager-access", self.name)
    }

    /// Where an environment's token is: with its manager; of a machine of somebody's own, with the environment.
    pub fn token_place<'a>(&'a self, environment: &'a Environment) -> &'a Place {
        match &self.manager {
            ManagerMode::Shared(place) => place,
            ManagerMode::Each | ManagerMode::Own { .. } => &environment.place,
        }
    }

    pub fn job_role_name(&self, environment: &Environment) -> String {
        format!("{}-job", self.environment_name(environment))
    }

    pub fn execution_role_name(&self, environment: &Environment) -> String {
        format!("{}-execution", self.environment_name(environment))
    }

    /// The role with which this environment's tasks are started, whoever does it.
    pub fn manager_role_name(&self, environment: &Environment) -> String {
        format!("{}-manager", self.environment_name(environment))
    }

    /// The job role as an ARN: made here, or somebody else's.
    pub fn job_role_arn(&self, environment: &Environment) -> String {
        match &environment.job_role {
            JobRole::Existing(arn) => arn.clone(),
            JobRole::Made { .. } => role_arn(&environment.place, &self.job_role_name(environment)),
        }
    }

    /// The execution role as an ARN: made here, or somebody else's.
    pub fn execution_role_arn(&self, environment: &Environment) -> String {
        let made = || role_arn(&environment.place, &self.execution_role_name(environment));
        environment.execution_role.clone().unwrap_or_else(made)
    }

    /// The manager role as an ARN: made here, or somebody else's.
    pub fn manager_role_arn(&self, environment: &Environment) -> String {
        let made = || role_arn(&environment.place, &self.manager_role_name(environment));
        environment.manager_role.clone().unwrap_or_else(made)
    }

    /// The environments whose jobs a manager gets.
    pub fn environments_of<'a>(&'a self, manager: ManagerOf<'a>) -> Vec<&'a Environment> {
        match manager {
            ManagerOf::One(environment) => vec![environment],
            ManagerOf::All(_) => self.environments.iter().collect(),
        }
    }

    /// The role of a manager's own task: the manager role of its environment, or one that may take those of all.
    pub fn manager_task_role_arn(&self, manager: ManagerOf) -> String {
        match manager {
            ManagerOf::One(environment) => self.manager_role_arn(environment),
            ManagerOf::All(place) => role_arn(place, &self.manager_name(manager)),
        }
    }

    /// The execution role of a manager's own task.
    pub fn manager_execution_role_name(&self, manager: ManagerOf) -> String {
        format!("{}-execution", self.manager_name(manager))
    }

    /// The log group of an environment's tasks.
    pub fn log_group(&self, environment: &Environment) -> String {
        format!("/staffetta/{}", self.environment_name(environment))
    }

    pub fn manager_log_group(&self, manager: ManagerOf) -> String {
        format!("/staffetta/{}", self.manager_name(manager))
    }

    /// The repository of an environment's task image: in its own account, where its execution role reaches it.
    pub fn task_repository(&self, environment: &Environment) -> String {
        format!("{}/task", self.environment_name(environment))
    }

    /// The repository of a manager's image.
    pub fn manager_repository(&self, manager: ManagerOf) -> String {
        format!("{}/manager", self.manager_name(manager))
    }

    /// The image that jobs run in.
    pub fn task_image(&self, environment: &Environment) -> String {
        let own = || format!("{}/{}:latest", registry(&environment.place), self.task_repository(environment));
        environment.image.clone().unwrap_or_else(own)
    }

    /// The image that a manager runs from.
    pub fn manager_image(&self, manager: ManagerOf) -> String {
        const VERSION: &str = env!("CARGO_PKG_VERSION");
        let own = || format!("{}/{}:{VERSION}", registry(manager.place()), self.manager_repository(manager));
        self.service.image.clone().unwrap_or_else(own)
    }

    /// `ci-dev-runner-token`, in the manager's account and region; or the ARN that the file gives.
    pub fn token_secret(&self, environment: &Environment) -> String {
        match &environment.runner_token {
            RunnerToken::Secret(arn) => arn.clone(),
            RunnerToken::Made => format!("{}-runner-token", self.environment_name(environment)),
        }
    }

    /// Bucket names are one for the whole world.
    pub fn cache_bucket(&self, environment: &Environment) -> String {
        let Place { account, region, .. } = &environment.place;
        format!("{}-cache-{account}-{region}", self.environment_name(environment))
    }
}

/// The variable in which a manager finds an environment's token: `DEV_RUNNER_TOKEN`.
pub fn token_variable(environment: &Environment) -> String {
    format!("{}_RUNNER_TOKEN", environment.name.to_ascii_uppercase().replace('-', "_"))
}

/// The parameter of a manager's stack that says how many managers run.
pub const DESIRED_COUNT: &str = "DesiredCount";
/// Outputs of an environment's stack.
pub const TASK_SECURITY_GROUP: &str = "TaskSecurityGroup";
/// The group of the environment's own manager; of a shared one, an output of the manager's stack.
pub const MANAGER_SECURITY_GROUP: &str = "ManagerSecurityGroup";

/// The parameter of a manager's stack that takes the task security group of an environment.
pub(super) fn task_group_parameter(environment: &Environment) -> String {
    format!("{TASK_SECURITY_GROUP}{}", logical_name(environment))
}

/// An environment in a logical id or the name of a parameter, which have letters and digits only. Names have no capitals, so two
/// never become the same.
pub(super) fn logical_name(environment: &Environment) -> String {
    environment.name.replace('-', "Dash")
}
