//! What holds between environments: nothing of one may reach another unnoticed.

use aws::stack::{Deployment, Environment, JobRole, ManagerMode, ManagerOf, Place, Role, RunnerToken, arn, roles};

use crate::config::section::Section;

/// S3's limit for a bucket's name.
const BUCKET: usize = 63;

/// `lines` has where each environment stands in the file.
pub fn check(section: &mut Section, deployment: &Deployment, lines: &[usize]) {
    let environments = || deployment.environments.iter().zip(lines);
    for (index, (environment, at)) in environments().enumerate() {
        name_of_a_manager(section, deployment, environment, *at);
        bucket(section, deployment, environment, *at);
        token(section, deployment, environment, *at);
        secret_place(section, deployment, environment, *at);
        brought_roles(section, deployment, environment, *at);
        network_path(section, deployment, environment, *at);
        for (earlier, _) in environments().take(index) {
            overlap(section, earlier, environment, *at);
        }
    }
    one_account(section, deployment, lines);
}

/// The stacks of managers are not those of environments.
fn name_of_a_manager(section: &mut Section, deployment: &Deployment, environment: &Environment, at: usize) {
    let name = &environment.name;
    let stack = deployment.environment_name(environment);
    let shared = deployment.manager_name(ManagerOf::All(&environment.place));
    if stack == shared || stack == deployment.manager_access_name() || name.ends_with("-manager") {
        let message = format!("no environment can be called {name:?}: that is what managers' stacks are called");
        section.mistake(at, message);
    }
}

/// `apply` makes secrets beside the managers that it starts with them.
fn token(section: &mut Section, deployment: &Deployment, environment: &Environment, at: usize) {
    if matches!(deployment.manager, ManagerMode::Own { .. }) && environment.runner_token == RunnerToken::Made {
        let name = &environment.name;
        let message = format!(
            "environment {name} needs `runner_token_secret`: with a manager of your own `apply` makes neither the runner nor \
             its secret. Make the runner with `staffetta register`, put its token into a secret of Secrets Manager, and give \
             the secret's ARN"
        );
        section.mistake(at, message);
    }
}

/// ECS reads a secret of another account or region too, if everything there is made for it.
fn secret_place(section: &mut Section, deployment: &Deployment, environment: &Environment, at: usize) {
    let RunnerToken::Secret(secret) = &environment.runner_token else { return };
    let place = deployment.token_place(environment);
    if !secret.starts_with("arn:") || secret.starts_with(&arn(place, "secretsmanager", "secret:")) {
        return;
    }
    let message = format!(
        "`environments.{}.runner_token_secret` is not in the manager's account and region, {} and {}: of another account, its \
         policy and that of its KMS key must let in the manager's execution role and whoever runs `deploy` and `doctor`; of \
         another region, no endpoint of the VPC leads to it",
        environment.name, place.account, place.region
    );
    section.report.warning(at, message);
}

/// Jobs have no role that is more than a job's, and a role that is made here is made for one thing.
fn brought_roles(section: &mut Section, deployment: &Deployment, environment: &Environment, at: usize) {
    let name = &environment.name;
    let brought = [
        ("job_role", job_role(environment)),
        ("execution_role", environment.execution_role.as_ref()),
        ("manager_role", environment.manager_role.as_ref()),
    ];
    let made = roles(deployment);
    for (key, brought) in brought.into_iter().filter_map(|(key, brought)| Some((key, brought?))) {
        // A path tells no roles apart: an account has a name once.
        let is_made = |role: &&Role| {
            brought.contains(&format!("::{}:role/", role.account)) && brought.ends_with(&format!("/{}", role.name))
        };
        if let Some(role) = made.iter().find(is_made) {
            let whose =
                role.environment.as_ref().map_or("the shared manager".to_owned(), |of| format!("environment {of}"));
            let message = format!(
                "`environments.{name}.{key}` is {}, which `apply` makes for {whose}: leave it out, or name a role of your own",
                role.name
            );
            section.mistake(at, message);
        }
    }
    let Some(jobs) = job_role(environment) else { return };
    let mightier = deployment.environments.iter().flat_map(|other| {
        let deploys = other.place.deploy_role.as_ref().map(|role| &role.arn);
        let roles = [
            ("execution_role", other.execution_role.as_ref()),
            ("manager_role", other.manager_role.as_ref()),
            ("deploy_role", deploys),
        ];
        roles.into_iter().filter_map(move |(key, arn)| Some((format!("environments.{}.{key}", other.name), arn?)))
    });
    let own = match &deployment.manager {
        ManagerMode::Own { principal } => Some(("principal".to_owned(), principal)),
        _ => None,
    };
    for (key, _) in mightier.chain(own).filter(|(_, role)| *role == jobs) {
        let message = format!("`environments.{name}.job_role` is also `{key}`: jobs would have that role's rights");
        section.mistake(at, message);
    }
}

/// The job role that somebody else made.
fn job_role(environment: &Environment) -> Option<&String> {
    match &environment.job_role {
        JobRole::Existing(arn) => Some(arn),
        JobRole::Made { .. } => None,
    }
}

fn bucket(section: &mut Section, deployment: &Deployment, environment: &Environment, at: usize) {
    let name = deployment.cache_bucket(environment);
    if environment.cache.is_some() && name.len() > BUCKET {
        let over = name.len() - BUCKET;
        let rest = (deployment.name.len() + environment.name.len()).saturating_sub(over);
        section.mistake(
            at,
            format!(
                "the bucket for caches would be called {name}, {over} more than the {BUCKET} characters that S3 takes: the \
                 names of the deployment and of the environment may have {rest} together"
            ),
        );
    }
}

/// Who may reach port 22 of the tasks.
fn network_path(section: &mut Section, deployment: &Deployment, environment: &Environment, at: usize) {
    let name = &environment.name;
    let (cidr, place) = (&environment.manager_cidr, &environment.place);
    let same_vpc = |manager: &Place| manager.vpc == place.vpc && manager.region == place.region;
    let mistake = match &deployment.manager {
        ManagerMode::Each if cidr.is_some() => {
            format!(
                "`environments.{name}.manager_cidr` is for managers elsewhere, but here each environment has its own: leave it out"
            )
        }
        ManagerMode::Shared(manager) if cidr.is_none() && !same_vpc(manager) => format!(
            "environment {name} is in another VPC than the shared manager, so no security group can name it: give its \
             network as `manager_cidr`"
        ),
        ManagerMode::Own { .. } if cidr.is_none() => {
            format!("environment {name} needs `manager_cidr`: the network that your manager comes from")
        }
        _ => String::new(),
    };
    if !mistake.is_empty() {
        section.mistake(at, mistake);
    }
    if matches!(deployment.manager, ManagerMode::Each) && environment.external_id.is_some() {
        let message = format!(
            "`environments.{name}.external_id` is for managers that take the environment's manager role, but here each \
             environment has its own manager: leave it out"
        );
        section.mistake(at, message);
    }
}

fn overlap(section: &mut Section, one: &Environment, other: &Environment, at: usize) {
    let names = format!("{} and {}", one.name, other.name);
    let common: Vec<_> = one.runner_tags.iter().filter(|tag| other.runner_tags.contains(tag)).cloned().collect();
    let within = |a: &Environment, b: &Environment| a.runner_tags.iter().all(|tag| b.runner_tags.contains(tag));
    if within(one, other) && within(other, one) {
        let message = format!(
            "environments {names} have the same runner tags ({}): GitLab would give their jobs to either",
            common.join(", ")
        );
        section.mistake(at, message);
    } else if !common.is_empty() {
        let message = format!(
            "environments {names} share tags: a job with no other tags than {} may run in either",
            common.join(", ")
        );
        section.report.warning(at, message);
    }
    if let (RunnerToken::Secret(a), RunnerToken::Secret(b)) = (&one.runner_token, &other.runner_token)
        && a == b
    {
        section.mistake(at, format!("environments {names} have the same runner token: register a runner for each"));
    }
    let roles = |environment: &Environment| {
        let job_role = job_role(environment).cloned();
        let brought = [job_role, environment.execution_role.clone(), environment.manager_role.clone()];
        brought.into_iter().flatten().collect::<Vec<_>>()
    };
    for role in roles(one).iter().filter(|role| roles(other).contains(role)) {
        section.report.warning(at, format!("environments {names} have the same role {role}: it reaches both"));
    }
}

/// Without a role `deploy` calls as the operator, who is in one account.
fn one_account(section: &mut Section, deployment: &Deployment, lines: &[usize]) {
    let mut places: Vec<_> = deployment
        .environments
        .iter()
        .zip(lines)
        .map(|(environment, at)| (format!("environment {}", environment.name), &environment.place, *at))
        .collect();
    if let ManagerMode::Shared(place) = &deployment.manager {
        places.insert(0, ("the shared manager".to_owned(), place, section.at));
    }
    places.retain(|(_, place, _)| place.deploy_role.is_none() && !place.account.is_empty());
    let Some(((first, home, _), others)) = places.split_first() else { return };
    for (what, place, at) in others.iter().filter(|(_, place, _)| place.account != home.account) {
        let message = format!(
            "{what} is in account {} and {first} in {}, but nobody is in two accounts: name the `deploy_role` that is to be \
             taken in one of them",
            place.account, home.account
        );
        section.mistake(*at, message);
    }
}
