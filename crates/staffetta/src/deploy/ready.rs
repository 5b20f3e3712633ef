//! Whether a manager can start: its image is in the repository, and each runner token in its secret.

use aws::inspect::{self, EcrImage, Stored};
use aws::stack::{Deployment, ManagerOf};
use aws::{CallError, Session};
use serde::Serialize;

/// What a manager waits for, and the commands that bring it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub what: String,
    pub commands: Vec<String>,
}

/// What was seen of all that a manager needs.
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

/// `session` is one of the manager's place.
pub async fn readiness(deployment: &Deployment, manager: ManagerOf<'_>, session: &Session) -> Readiness {
    let mut seen = Readiness::default();
    let name = deployment.manager_image(manager);
    let place = manager.place();
    // What is in other registries and accounts is for its owner to know.
    let image = EcrImage::parse(&name).filter(|image| image.account == place.account && image.region == place.region);
    if let Some(image) = image {
        match inspect::stored_image(session, &image).await {
            Ok(Stored::Image { .. }) => {}
            Ok(Stored::NoImage | Stored::NoRepository) => seen.missing.push(missing_image(&name, &place.region)),
            Err(error) => seen.unseen.push(format!("the image {name}: {error}")),
        }
    }
    for environment in deployment.environments_of(manager) {
        let secret = deployment.token_secret(environment);
        match inspect::secret_text(session, &secret).await {
            Ok(Some(_)) => {}
            Ok(None) => seen.missing.push(missing_token(&environment.name, &secret, &place.region)),
            Err(CallError::Refused(refusal)) if refusal.code == "ResourceNotFoundException" => {
                seen.missing.push(missing_token(&environment.name, &secret, &place.region));
            }
            Err(error) => seen.unseen.push(format!("the runner token in {secret}: {error}")),
        }
    }
    seen
}

fn missing_image(image: &str, region: &str) -> Missing {
    let registry = image.split('/').next().unwrap_or_default();
    let prefix = image.rsplit_once('/').map_or(image, |(prefix, _)| prefix);
    Missing {
        what: format!("the manager's image {image}"),
        commands: vec![
            format!("make images IMAGES=manager IMAGE_PREFIX={prefix}"),
            format!(
                "aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin {registry}"
            ),
            format!("docker push {image}"),
        ],
    }
}

fn missing_token(environment: &str, secret: &str, region: &str) -> Missing {
    Missing {
        what: format!("the token of the runner {environment}, in the secret {secret}"),
        commands: vec![format!(
            "aws secretsmanager put-secret-value --region {region} --secret-id {secret} --secret-string file:///dev/stdin"
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_starts_when_all_is_there_and_is_never_stopped_by_what_is_not() {
        let missing = || vec![Missing { what: "image".into(), commands: Vec::new() }];
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
        let commands = missing_image(image, "eu-west-1").commands;
        assert!(commands[0].ends_with("IMAGE_PREFIX=1.dkr.ecr.eu-west-1.amazonaws.com/ci-dev-manager"), "{commands:?}");
        assert!(commands[1].ends_with("--password-stdin 1.dkr.ecr.eu-west-1.amazonaws.com"), "{commands:?}");
        assert_eq!(commands[2], format!("docker push {image}"));
    }
}
