//! What stacks cannot bring: images in their repositories, and runner tokens in their secrets.

use aws::Session;
use aws::inspect::{self, EcrImage, Stored};
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
        // A secret that the file brings along is for its owner to fill.
        if environment.runner_token != RunnerToken::Made {
            continue;
        }
        let secret = deployment.token_secret(environment);
        match runner_secret(session, &secret).await {
            Ok(RunnerSecret::Stored) => {}
            Ok(RunnerSecret::Empty | RunnerSecret::Absent) => {
                seen.missing.push(missing_token(&stack, environment, &secret));
            }
            Err(error) => seen.unseen.push(format!("the runner token in {secret}: {error}")),
        }
    }
    seen
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
        build: &dyn Fn(&str) -> String,
    ) {
        let image = EcrImage::parse(name).filter(|it| it.account == place.account && it.region == place.region);
        let Some(image) = image else { return };
        match inspect::stored_image(session, &image).await {
            Ok(Stored::Image { .. }) => {}
            Ok(Stored::NoImage | Stored::NoRepository) => self.missing.push(Missing {
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

/// `apply` itself stores a token that it finds in this variable, so it is in no command line.
fn missing_token(stack: &str, environment: &Environment, secret: &str) -> Missing {
    let variable = token_variable(environment);
    Missing {
        stack: stack.to_owned(),
        what: format!("the token of the runner {}, in the secret {secret}", environment.name),
        commands: vec![format!("read -rs {variable} && export {variable}    # glrt-…, as GitLab shows it")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_commands_make_exactly_the_image_that_is_asked_for() {
        let image = "1.dkr.ecr.eu-west-1.amazonaws.com/ci-dev-manager/manager:0.1.0";
        let commands = push_commands(image, "eu-west-1", &|prefix| prefix.to_owned());
        assert_eq!(commands[0], "1.dkr.ecr.eu-west-1.amazonaws.com/ci-dev-manager");
        assert!(commands[1].ends_with("--password-stdin 1.dkr.ecr.eu-west-1.amazonaws.com"), "{commands:?}");
        assert_eq!(commands[2], format!("docker push {image}"));
    }
}
