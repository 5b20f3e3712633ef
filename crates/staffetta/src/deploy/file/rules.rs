//! What holds between environments: nothing of one may reach another unnoticed.

use aws::stack::{Deployment, Environment, JobRole, ManagerMode, Place, RunnerToken};

use crate::config::section::Section;

/// S3's limit for a bucket's name.
const BUCKET: usize = 63;

/// `lines` has where each environment stands in the file.
pub fn check(section: &mut Section, deployment: &Deployment, lines: &[usize]) {
    let environments = || deployment.environments.iter().zip(lines);
    for (index, (environment, at)) in environments().enumerate() {
        bucket(section, deployment, environment, *at);
        network_path(section, deployment, environment, *at);
        for (earlier, _) in environments().take(index) {
            overlap(section, earlier, environment, *at);
        }
    }
    one_account(section, deployment, lines);
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
    let job_role = |environment: &Environment| match &environment.job_role {
        JobRole::Existing(arn) => Some(arn.clone()),
        JobRole::Made { .. } => None,
    };
    let roles = |environment: &Environment| {
        let brought = [job_role(environment), environment.execution_role.clone(), environment.manager_role.clone()];
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
