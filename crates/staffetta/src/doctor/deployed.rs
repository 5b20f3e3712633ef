//! What `deploy apply` made of an environment: the subject that its stacks tell of.

use std::path::Path;

use aws::stack::cloudformation::{CloudFormation, Phase, StackRecord};
use aws::stack::{
    Deployment, Environment, MANAGER_SECURITY_GROUP, ManagerMode, ManagerOf, Place, TASK_SECURITY_GROUP, manager_work,
    token_variable,
};
use aws::{CallError, Session, inspect};
use job::secret::{ExposeSecret, SecretString};

use super::Finding;
use super::subject::{Manager, ManagerPlace, Subject};
use crate::config::{self, Runner};
use crate::deploy::config_toml::config_toml;

const STACK: &str = "stack";
const IDENTITY: &str = "aws-identity";

/// The manager's file for the environment, with the ids that AWS gave; or why it cannot be examined.
pub async fn subject(deployment: &Deployment, environment: &Environment, file: &Path) -> Result<Subject, Finding> {
    let place = &environment.place;
    // The token lies where the manager runs; so does the group of a shared manager.
    let (home, service) = match &deployment.manager {
        ManagerMode::Each => (place, Some(ManagerOf::One(environment))),
        ManagerMode::Shared(home) => (home, Some(ManagerOf::All(home))),
        ManagerMode::Own { .. } => (place, None),
    };
    let shared = match service {
        Some(ManagerOf::All(_)) => Some(deployment.manager_access_name()),
        _ => None,
    };
    let (session, at_home) = tokio::try_join!(open(place), open(home))?;
    let of_manager = async {
        match shared {
            Some(name) => stack(&at_home, &name).await.map(Some),
            None => Ok(None),
        }
    };
    let name = deployment.environment_name(environment);
    let (own, of_manager, token) =
        tokio::join!(stack(&session, &name), of_manager, token(&at_home, deployment.token_secret(environment)),);
    let (own, of_manager) = (own?, of_manager?);
    let output = |record: &StackRecord, name: &str| record.outputs.get(name).cloned();
    let group = output(&own, TASK_SECURITY_GROUP).unwrap_or_default();
    let text = config_toml(deployment, &[environment], &|_| group.clone());
    let runner = runner(file, &text, environment, &token).map_err(|reason| {
        let fix = "Run `staffetta deploy apply` with this version of Staffetta.";
        Finding::bad(STACK, format!("the stack {name} gives no usable config.toml: {reason}"), "No job runs.", fix)
    })?;
    let manager_group = output(of_manager.as_ref().unwrap_or(&own), MANAGER_SECURITY_GROUP);
    let manager_place = service.map(|manager| ManagerPlace {
        name: deployment.manager_name(manager),
        log_group: deployment.manager_log_group(manager),
        region: home.region.clone(),
        subnets: home.subnets.clone(),
        security_group: manager_group.clone().unwrap_or_default(),
        assign_public_ip: home.assign_public_ip,
        as_role: home.deploy_role.clone(),
    });
    Ok(Subject {
        name: environment.name.clone(),
        runner,
        token,
        tags: Some(environment.runner_tags.clone()),
        concurrent: deployment.service.concurrent as usize,
        architecture: Some(environment.architecture),
        account: Some(place.account.clone()),
        manager: Manager {
            role: Some(deployment.manager_role_arn(environment)),
            work: Some(manager_work(deployment, environment)),
            security_groups: manager_group.into_iter().collect(),
            subnets: manager_place.as_ref().map(|place| place.subnets.clone()).unwrap_or_default(),
            cidr: environment.manager_cidr.clone(),
            place: manager_place,
        },
        as_role: place.deploy_role.clone(),
    })
}

pub(super) async fn open(place: &Place) -> Result<Session, Finding> {
    let session = Session::open(Some(&place.region), None, place.deploy_role.as_ref()).await;
    session.map_err(|error| {
        Finding::bad(
            IDENTITY,
            error.to_string(),
            "Nothing can be looked at.",
            "Correct region and deploy_role in the file.",
        )
    })
}

/// A stack that stands, or what is wrong with it.
pub(super) async fn stack(session: &Session, name: &str) -> Result<StackRecord, Finding> {
    const BREAKS: &str = "No job can run in this environment.";
    let apply = || "Run `staffetta deploy apply`.".to_owned();
    match CloudFormation::new(session).describe(name).await {
        Ok(Some(record)) => match record.phase() {
            Phase::Stands | Phase::TakenBack => Ok(record),
            Phase::Working => Err(Finding::unknown(
                STACK,
                format!("the stack {name} is being changed: {}", record.status),
                "Wait until it is done, and run doctor again.",
            )),
            Phase::OnlyRecord | Phase::Remains | Phase::StuckUpdate | Phase::Foreign | Phase::Gone => {
                let reason = record.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                Err(Finding::bad(STACK, format!("the stack {name} is in {}{reason}", record.status), BREAKS, apply()))
            }
        },
        Ok(None) => {
            let evidence = format!("there is no stack {name} in {}", session.region());
            Err(Finding::bad(STACK, evidence, BREAKS, apply()))
        }
        Err(error) => Err(Finding::not_seen(STACK, "cloudformation:DescribeStacks", &error)),
    }
}

/// Or why it is not known.
async fn token(session: &Session, secret: String) -> Result<SecretString, String> {
    match inspect::secret_text(session, &secret).await {
        // As the manager reads it: a secret that was made with `echo` ends in a line end.
        Ok(Some(token)) if !token.expose_secret().trim().is_empty() => {
            Ok(token.expose_secret().trim().to_owned().into())
        }
        Ok(_) => Err(format!("the secret {secret} is empty; `staffetta deploy apply` says how to fill it")),
        Err(CallError::Refused(refusal)) if refusal.code == "AccessDeniedException" => {
            Err(format!("secretsmanager:GetSecretValue on {secret} is not allowed here"))
        }
        Err(error) => Err(format!("the secret {secret}: {error}")),
    }
}

/// The runner as the file alone has it, with a security group that stands in for its own: for what asks nothing of AWS.
pub fn runner_of_file(deployment: &Deployment, environment: &Environment, file: &Path) -> Option<Runner> {
    let text = config_toml(deployment, &[environment], &|_| "sg-00000000".to_owned());
    runner(file, &text, environment, &Err(String::new())).ok()
}

/// Read as the manager reads it.
fn runner(
    file: &Path,
    text: &str,
    environment: &Environment,
    token: &Result<SecretString, String>,
) -> Result<Runner, String> {
    let variable = token_variable(environment);
    let value = |name: &str| {
        let known = token.as_ref().ok().filter(|_| name == variable);
        Some(known.map_or_else(|| "not-known".to_owned(), |token| token.expose_secret().to_owned()))
    };
    let loaded = config::load_as(file, text, &value).map_err(|mistakes| mistakes.to_string())?;
    loaded.config.runners.into_iter().next().ok_or_else(|| "it has no runner".to_owned())
}
