//! The tokens of runners whose secrets `apply` makes: given, made or asked for; tried at GitLab; then stored.

use std::path::Path;

use anyhow::{Context, anyhow};
use aws::Session;
use aws::stack::{
    Deployment, Environment, RunnerSecret, RunnerToken, runner_secret, store_runner_token, token_variable,
};
use gitlab::{CallError, Client, ClientConfig, Info, Registered, Registration, RunnerScope, Verified};
use job::secret::{ExposeSecret, SecretString};

use super::file::Loaded;
use crate::config::Certificates;
use crate::registration::register::is_no;
use crate::registration::{PERSONAL_ACCESS_TOKEN as PERSONAL, ask};

/// What stands outside.
pub struct Outside<'a> {
    /// The deployment file: GitLab's certificates may be beside it.
    pub file: &'a Path,
    /// A variable that is set to something.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Somebody is there to be asked.
    pub asks: bool,
}

/// What is to be done about an environment's token.
#[derive(Debug)]
pub enum TokenStep {
    /// It is there.
    Nothing,
    /// GitLab knows this token: to be stored. And where it came from.
    Store(SecretString, &'static str),
    /// A runner is to be made as this person, and its token stored.
    Make(SecretString, RunnerScope),
    /// Nobody has given one, or GitLab refuses it: why, and what to do.
    Missing(String),
}

/// Looks whether the secret of an environment has a token, and where one comes from. `session` is one of its manager's
/// place, whose stack has made the secret.
pub async fn look(
    session: &Session,
    loaded: &Loaded,
    environment: &Environment,
    outside: &Outside<'_>,
) -> anyhow::Result<TokenStep> {
    let deployment = &loaded.deployment;
    if let RunnerToken::Secret(_) = environment.runner_token {
        return Ok(TokenStep::Nothing);
    }
    let secret = deployment.token_secret(environment);
    let looked = runner_secret(session, &secret).await;
    match looked.with_context(|| format!("whether the secret {secret} has a token cannot be seen"))? {
        RunnerSecret::Stored => return Ok(TokenStep::Nothing),
        RunnerSecret::Absent => return Err(anyhow!("there is no secret {secret}: its manager's stack makes it")),
        RunnerSecret::Empty => {}
    }
    let (token, from) = match source(environment, loaded.runner_scope, outside) {
        Source::Make(personal, scope) => return Ok(TokenStep::Make(personal, scope)),
        Source::Nobody(advice) => return Ok(TokenStep::Missing(advice)),
        Source::Variable(token) => (token, "the environment"),
        Source::Ask => {
            let url = &deployment.gitlab_url;
            let question = format!("Token of the runner {} (glrt-…), from {url}", environment.name);
            (ask::secret(&question).await?, "your answer")
        }
    };
    match try_at_gitlab(&client(&deployment.gitlab_url, outside.file)?, &token).await? {
        Some(refusal) => Ok(TokenStep::Missing(format!("the token from {from} is no good: {refusal}"))),
        None => Ok(TokenStep::Store(token, from)),
    }
}

/// What became of an environment's token.
#[derive(Debug, PartialEq, Eq)]
pub enum Provided {
    /// It was there.
    There,
    /// It is there now: where it came from.
    Stored(&'static str),
    /// As in [`TokenStep`].
    Missing(String),
}

/// To be waited for to the end: a runner that is made and forgotten has a token that nobody knows.
pub async fn provide(
    step: TokenStep,
    session: &Session,
    deployment: &Deployment,
    environment: &Environment,
    file: &Path,
) -> anyhow::Result<Provided> {
    let secret = deployment.token_secret(environment);
    let cannot_store = || format!("the token cannot be stored in {secret}");
    match step {
        TokenStep::Nothing => Ok(Provided::There),
        TokenStep::Missing(why) => Ok(Provided::Missing(why)),
        TokenStep::Store(token, from) => {
            store_runner_token(session, &secret, &token).await.with_context(cannot_store)?;
            Ok(Provided::Stored(from))
        }
        TokenStep::Make(personal, scope) => {
            let client = client(&deployment.gitlab_url, file)?;
            let registration = registration(deployment, environment);
            let made = match client.create_runner(&personal, scope, &registration).await {
                Ok(made) => made,
                Err(error) => return not_made(error, &registration.description),
            };
            let stored = Ok(Provided::Stored("a runner that was made in GitLab"));
            let Err(error) = store_runner_token(session, &secret, &made.token).await else { return stored };
            // An answer may be lost after the token was stored, and then its runner is needed.
            let left = match runner_secret(session, &secret).await {
                Ok(RunnerSecret::Stored) => return stored,
                Ok(RunnerSecret::Empty | RunnerSecret::Absent) => take_back(&client, &made).await,
                Err(_) => format!("the runner {} stays in GitLab: delete it there if {secret} has no value", made.id),
            };
            Err(anyhow::Error::from(error).context(cannot_store()).context(left))
        }
    }
}

/// Says what is left of the runner.
async fn take_back(client: &Client, made: &Registered) -> String {
    match client.unregister(&made.token).await {
        Ok(()) => format!("the runner {} was deleted in GitLab again", made.id),
        Err(error) => format!("the runner {} could not be deleted in GitLab again ({error}): delete it there", made.id),
    }
}

#[derive(Debug)]
enum Source {
    Variable(SecretString),
    Make(SecretString, RunnerScope),
    Ask,
    Nobody(String),
}

fn source(environment: &Environment, scope: Option<RunnerScope>, outside: &Outside) -> Source {
    let secret = |name: &str| (outside.variable)(name).map(|text| SecretString::from(text.trim()));
    let variable = token_variable(environment);
    match (secret(&variable), secret(PERSONAL), scope) {
        (Some(token), ..) => Source::Variable(token),
        (None, Some(personal), Some(scope)) => Source::Make(personal, scope),
        _ if outside.asks => Source::Ask,
        (None, Some(_), None) => Source::Nobody(format!(
            "say in the file in which `gitlab_group` or `gitlab_project` the runner is to be made, or set {variable} to a \
             runner's token"
        )),
        (None, None, Some(_)) => Source::Nobody(format!(
            "set {PERSONAL} to a token with the scope create_runner, or {variable} to a runner's token"
        )),
        (None, None, None) => Source::Nobody(format!(
            "set {variable} to the runner's token (glrt-…), which GitLab shows when the runner is created"
        )),
    }
}

fn client(url: &str, file: &Path) -> anyhow::Result<Client> {
    let beside = Certificates::beside(file, url);
    let (tls_cert_file, tls_key_file) = beside.client.unzip();
    let config = ClientConfig {
        tls_ca_file: beside.ca,
        tls_cert_file,
        tls_key_file,
        ..ClientConfig::new(url, Info::new("fargate", ""))
    };
    Ok(Client::new(config)?)
}

/// Why GitLab refuses a token; none is a good one.
async fn try_at_gitlab(client: &Client, token: &SecretString) -> anyhow::Result<Option<String>> {
    if !token.expose_secret().chars().all(|c| c.is_ascii_graphic()) {
        return Ok(Some("a token has no blanks".into()));
    }
    match client.verify(token, None).await {
        Verified::Valid(_) => Ok(None),
        Verified::Invalid => Ok(Some("GitLab does not know it: it is wrong, or the runner was deleted".into())),
        Verified::Orphaned(reason) => Ok(Some(format!("its runner is in no project or group any more ({reason})"))),
        Verified::Unknown(reason) => Err(anyhow!("the token cannot be tried at GitLab: {reason}")),
    }
}

fn registration(deployment: &Deployment, environment: &Environment) -> Registration {
    Registration {
        description: deployment.environment_name(environment),
        maintenance_note: "Made by `staffetta deploy apply`".into(),
        tag_list: environment.runner_tags.join(","),
        ..Registration::default()
    }
}

fn not_made(error: CallError, name: &str) -> anyhow::Result<Provided> {
    if !is_no(&error) {
        let left = format!("GitLab may have made a runner {name} that nobody uses: delete it there if it has");
        return Err(anyhow::Error::from(error).context(left));
    }
    Ok(Provided::Missing(format!(
        "GitLab does not make the runner ({error}): {PERSONAL} needs the scope create_runner, and its owner the role Owner in \
         the group, or Maintainer in the project, that the file names"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::file;

    #[test]
    fn a_token_is_taken_before_one_is_made_and_made_before_anybody_is_asked() {
        let loaded = file::tests::dev("");
        let dev = &loaded.deployment.environments[0];
        let group = Some(RunnerScope::Group { group_id: 4 });
        let told = |variables: &[(&str, &str)], scope, asks| {
            let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| v.to_string());
            match source(dev, scope, &Outside { file: Path::new("staffetta.toml"), variable: &variable, asks }) {
                Source::Variable(token) => format!("token {}", token.expose_secret()),
                Source::Make(personal, _) => format!("make {}", personal.expose_secret()),
                Source::Ask => "ask".to_owned(),
                Source::Nobody(advice) => advice,
            }
        };
        let (token, personal) = (("DEV_RUNNER_TOKEN", "glrt-a\n"), (PERSONAL, "glpat-b"));
        assert_eq!(told(&[token, personal], group, true), "token glrt-a");
        assert_eq!(told(&[personal], group, true), "make glpat-b");
        assert_eq!(told(&[personal], None, true), "ask");
        assert!(told(&[personal], None, false).contains("`gitlab_group`"));
        assert!(told(&[], group, false).contains(PERSONAL));
        assert!(told(&[], None, false).starts_with("set DEV_RUNNER_TOKEN"));
    }

    #[test]
    fn a_runner_is_made_with_the_tags_of_the_file_and_takes_no_other_jobs() {
        let deployment = file::tests::dev("runner_tags = [\"dev\", \"arm\"]").deployment;
        let made = registration(&deployment, &deployment.environments[0]);
        assert_eq!(
            (made.description.as_str(), made.tag_list.as_str(), made.run_untagged),
            ("ci-dev", "dev,arm", false)
        );
    }
}
