//! What stacks cannot bring: images in their repositories, and runner tokens in their secrets.

use aws::Session;
use aws::inspect::{self, EcrImage};
use aws::stack::{Deployment, Environment, ManagerOf, Place, RunnerSecret, RunnerToken, runner_secret, token_variable};
use serde::Serialize;

/// What a manager or jobs wait for, and the commands that bring it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The stack that has the place for it.
    pub stack: String,
    pub what: String,
    pub commands: Vec<String>,
}

/// What was seen of all that is needed.
#[derive(Debug, Default)]
pub struct Readiness {
    pub missing: Vec<Missing>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// What to do with the number of managers that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Set(u32),
    /// The manager runs, and its next version could not start: its stack stays as it is.
    Hold,
}

/// `running` is the number that the stack has now. A manager that runs is never stopped because something could not be seen.
pub fn count(readiness: &Readiness, running: u32) -> Count {
    match (readiness.missing.is_empty(), readiness.unseen.is_empty(), running) {
        (true, true, _) => Count::Set(1),
        (true, false, running) => Count::Set(running),
        (false, _, 0) => Count::Set(0),
        (false, _, _) => Count::Hold,
    }
}

/// What a manager needs. `session` is one of its place.
pub async fn of_manager(deployment: &Deployment, manager: ManagerOf<'_>, session: &Session) -> Readiness {
    let mut seen = Readiness::default();
    let stack = deployment.manager_name(manager);
    let (image, build) =
        (deployment.manager_image(manager), |prefix: &str| format!("make images IMAGES=manager IMAGE_PREFIX={prefix}"));
    seen.image(&stack, "the manager's image", &image, manager.place(), session, &build).await;
    for environment in deployment.environments_of(manager) {
        let secret = deployment.token_secret(environment);
        match look_at_token(session, environment, &secret).await {
            Ok(RunnerSecret::Stored) => {}
            Ok(state) => seen.missing.push(missing_token(&stack, environment, &secret, state)),
            Err(error) => seen.unseen.push(format!("the runner token in {secret}: {error}")),
        }
    }
    seen
}

/// A secret that the file brings along may be in another region than its manager.
async fn look_at_token(session: &Session, environment: &Environment, secret: &str) -> Result<RunnerSecret, String> {
    let looked = match (&environment.runner_token, region_of(secret)) {
        (RunnerToken::Secret(_), Some(region)) => {
            let session = session.in_region(region).map_err(|error| error.to_string())?;
            runner_secret(&session, secret).await
        }
        _ => runner_secret(session, secret).await,
    };
    looked.map_err(|error| error.to_string())
}

/// What the jobs of an environment need.
pub async fn of_environment(deployment: &Deployment, environment: &Environment, session: &Session) -> Readiness {
    let mut seen = Readiness::default();
    let stack = deployment.environment_name(environment);
    let image = deployment.task_image(environment);
    let tag = |_: &str| format!("docker tag YOUR_IMAGE {image}");
    seen.image(&stack, "the image of the jobs", &image, &environment.place, session, &tag).await;
    seen
}

impl Readiness {
    /// Looks for an image. What is in other registries, accounts and regions is for its owner to know.
    async fn image(
        &mut self,
        stack: &str,
        what: &str,
        name: &str,
        place: &Place,
        session: &Session,
        build: &(dyn Fn(&str) -> String + Sync),
    ) {
        let image = EcrImage::parse(name).filter(|it| it.account == place.account && it.region == place.region);
        let Some(image) = image else { return };
        match inspect::image_exists(session, &image).await {
            Ok(true) => {}
            Ok(false) => self.missing.push(Missing {
                stack: stack.to_owned(),
                what: format!("{what} {name}"),
                commands: push_commands(name, &place.region, build),
            }),
            Err(error) => self.unseen.push(format!("{what} {name}: {error}")),
        }
    }
}

/// `build` makes the image under its name, of which it gets all but the last part.
fn push_commands(image: &str, region: &str, build: &dyn Fn(&str) -> String) -> Vec<String> {
    let registry = image.split('/').next().unwrap_or_default();
    let prefix = image.rsplit_once('/').map_or(image, |(prefix, _)| prefix);
    vec![
        build(prefix),
        format!(
            "aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin {registry}"
        ),
        format!("docker push {image}"),
    ]
}

/// That of an ARN.
fn region_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(3)
}

/// The name in an ARN, which ends with a dash and six letters of Secrets Manager.
fn secret_name(arn: &str) -> &str {
    let name = arn.splitn(7, ':').last().unwrap_or(arn);
    name.rsplit_once('-').map_or(name, |(name, _)| name)
}

/// The token itself is in no command line. Into a secret of its own `apply` stores what it finds in the variable; one that the
/// file brings along is for its owner to fill.
fn missing_token(stack: &str, environment: &Environment, secret: &str, state: RunnerSecret) -> Missing {
    let variable = token_variable(environment);
    let name = &environment.name;
    let read = format!("read -rs {variable} && export {variable}    # glrt-…, as GitLab shows it");
    let aws = |what: &str| {
        let region = region_of(secret).map(|region| format!(" --region {region}")).unwrap_or_default();
        format!(
            "printenv {variable} | tr -d '\\n' | aws secretsmanager {what}{region} --secret-string file:///dev/stdin"
        )
    };
    let (what, commands) = match (&environment.runner_token, state) {
        (RunnerToken::Made, _) => (format!("the token of the runner {name}, in the secret {secret}"), vec![read]),
        (RunnerToken::Secret(_), RunnerSecret::Absent) => (
            format!(
                "the secret {secret}, which the file names for the runner {name}: name in the file the ARN of what this makes"
            ),
            vec![read, aws(&format!("create-secret --name {}", secret_name(secret)))],
        ),
        (RunnerToken::Secret(_), _) => (
            format!("the token of the runner {name}, in the secret {secret} that the file names"),
            vec![read, aws(&format!("put-secret-value --secret-id {secret}"))],
        ),
    };
    Missing { stack: stack.to_owned(), what, commands }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::file;

    #[test]
    fn a_manager_starts_when_all_is_there_and_is_never_stopped_by_what_is_not() {
        let missing = || vec![Missing { stack: "m".into(), what: "image".into(), commands: Vec::new() }];
        let unseen = || vec!["the token: AccessDenied".to_owned()];
        for (missing, unseen, running, expected) in [
            (vec![], vec![], 0, Count::Set(1)),
            (vec![], vec![], 1, Count::Set(1)),
            (missing(), vec![], 0, Count::Set(0)),
            (missing(), vec![], 1, Count::Hold),
            (vec![], unseen(), 0, Count::Set(0)),
            (vec![], unseen(), 1, Count::Set(1)),
            (missing(), unseen(), 0, Count::Set(0)),
            (missing(), unseen(), 1, Count::Hold),
        ] {
            let readiness = Readiness { missing, unseen };
            assert_eq!(count(&readiness, running), expected, "{readiness:?} {running}");
        }
    }

    #[test]
    fn a_token_that_is_missing_is_stored_without_being_in_a_command_line() {
        const ARN: &str = "arn:aws:secretsmanager:eu-north-1:111122223333:secret:ci/dev-token-AbCdEf";
        let loaded = file::tests::dev(&format!("runner_token_secret = \"{ARN}\""));
        let dev = &loaded.deployment.environments[0];
        for (state, command) in [
            (
                RunnerSecret::Absent,
                "aws secretsmanager create-secret --name ci/dev-token --region eu-north-1 ".to_owned(),
            ),
            (
                RunnerSecret::Empty,
                format!("aws secretsmanager put-secret-value --secret-id {ARN} --region eu-north-1 "),
            ),
        ] {
            let missing = missing_token("ci-dev-manager", dev, ARN, state);
            assert!(missing.what.contains(ARN), "{missing:?}");
            assert!(missing.commands[0].starts_with("read -rs DEV_RUNNER_TOKEN "), "{missing:?}");
            assert!(missing.commands[1].starts_with(r"printenv DEV_RUNNER_TOKEN | tr -d '\n' | aws "), "{missing:?}");
            assert!(missing.commands[1].contains(&command), "{missing:?}");
        }
    }

    #[test]
    fn the_commands_make_exactly_the_image_that_is_asked_for() {
        let image = "1.dkr.ecr.eu-west-1.amazonaws.com/ci-dev-manager/manager:0.1.0";
        let commands = push_commands(image, "eu-west-1", &|prefix| prefix.to_owned());
        assert_eq!(commands[0], "1.dkr.ecr.eu-west-1.amazonaws.com/ci-dev-manager");
        assert!(commands[1].ends_with("--password-stdin 1.dkr.ecr.eu-west-1.amazonaws.com"), "{commands:?}");
        assert_eq!(commands[2], format!("docker push {image}"));
    }
}
