//! One registration: GitLab is asked for a runner, and its answer is written down. What cannot be written down is
//! taken back.

use std::path::PathBuf;

use anyhow::anyhow;
use gitlab::{CallError, Client, ClientConfig, Info, Known, Registered, Registration, RunnerScope, Verified};
use jiff::Timestamp;
use job::ids::SystemId;
use job::secret::{ExposeSecret, SecretString};

use super::entries::{self, Given};
use super::new_entry::{Setting, Template, append};
use super::new_version::{NewVersion, parse, read};
use crate::config::{self, system_id};

/// By what GitLab gives a runner.
pub enum Access {
    /// The runner exists, and this is its own token.
    Runner(SecretString),
    /// A legacy registration token makes one.
    RegistrationToken(SecretString, Registration),
    /// A personal access token makes one.
    Owner(SecretString, RunnerScope, Registration),
}

/// What is to be registered, with nothing left to ask.
pub struct Order {
    pub config_file: PathBuf,
    pub name: String,
    pub url: String,
    pub executor: String,
    pub access: Access,
    pub template: Template,
    /// Keys of the entry beside those above.
    pub settings: Vec<Setting>,
    pub leave_runner: bool,
}

/// A runner that is in GitLab and in the file.
pub struct Done {
    /// Very old servers do not tell it.
    pub id: Option<u64>,
    pub token: SecretString,
    /// The system id was good for this call only.
    pub system_id_not_kept: Option<std::io::Error>,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// GitLab said no.
    #[error("{0}")]
    Refused(String),
    #[error("interrupted: {0}")]
    Interrupted(String),
    #[error(transparent)]
    Impossible(#[from] anyhow::Error),
}

/// `--token` and `--registration-token` may each have an authentication token (protocol 1.1).
pub fn is_authentication_token(token: &SecretString) -> bool {
    token.expose_secret().starts_with("glrt-")
}

/// Registers. `interrupted` resolves when the user wants it undone, and once more when he does not want to wait.
pub async fn register(order: &Order, mut interrupted: impl AsyncFnMut()) -> Result<Done, Failure> {
    let place = NewVersion::of(&order.config_file)?;
    // Everything that can go wrong in the file does so before GitLab is asked.
    order.write_into(&read(&order.config_file)?, &nobody(order))?;
    let client = order.client()?;
    let system_id = system_id::load_or_create(&order.config_file);
    // Never dropped half-way: an answer that nobody reads is a runner whose token nobody has.
    let asking = order.ask(&client, &system_id.id);
    tokio::pin!(asking);
    let answer = tokio::select! {
        answer = &mut asking => Some(answer),
        () = interrupted() => None,
    };
    let stopped = answer.is_none();
    let given = match answer {
        Some(answer) => answer?,
        None => {
            eprintln!("Waiting for GitLab's answer, to take the registration back; Ctrl-C again does not wait.");
            tokio::select! {
                answer = &mut asking => answer?,
                () = interrupted() => {
                    return Err(Failure::Interrupted("GitLab may have made a runner that nobody uses".into()));
                }
            }
        }
    };
    if stopped {
        return Err(Failure::Interrupted(order.take_back(&client, &given, &system_id.id).await));
    }
    if let Err(error) = place.write(|text| order.write_into(text, &given)) {
        let left = order.take_back(&client, &given, &system_id.id).await;
        return Err(error.context(format!("the entry cannot be written, and {left}")).into());
    }
    Ok(Done { id: given.id, token: given.token, system_id_not_kept: system_id.not_kept })
}

/// Stands for GitLab's answer before there is one.
fn nobody(order: &Order) -> Given {
    let token = match &order.access {
        Access::Runner(token) => token.clone(),
        Access::RegistrationToken(..) | Access::Owner(..) => SecretString::default(),
    };
    Given { id: None, token, obtained_at: Timestamp::UNIX_EPOCH, expires_at: None }
}

impl Order {
    /// What the entry will say.
    fn text(&self, key: &'static str) -> Option<String> {
        let set = self.settings.iter().find(|setting| setting.path == [key]);
        let set = set.and_then(|setting| setting.value.as_str().map(str::to_owned));
        set.or_else(|| self.template.text(&[key]))
    }

    fn client(&self) -> anyhow::Result<Client> {
        let path = |key| self.text(key).map(PathBuf::from);
        let beside = config::Certificates::beside(&self.config_file, &self.url);
        let (cert, key) = beside.client.unzip();
        Ok(Client::new(ClientConfig {
            tls_ca_file: path("tls-ca-file").or(beside.ca),
            tls_cert_file: path("tls-cert-file").or(cert),
            tls_key_file: path("tls-key-file").or(key),
            ..ClientConfig::new(&self.url, Info::new(&self.executor, self.text("shell").unwrap_or_default()))
        })?)
    }

    /// The file with the new entry. Two runners with one name or one token would not be taken by the manager.
    fn write_into(&self, text: &str, given: &Given) -> anyhow::Result<String> {
        let there = entries::entries(&parse(&self.config_file, text)?, &|name| std::env::var(name).ok());
        let file = self.config_file.display();
        let token = given.token.expose_secret();
        if let Some(same) = there.iter().find(|entry| !token.is_empty() && entry.token.expose_secret() == token) {
            return Err(anyhow!("this token is in {file} already, as runner {:?}", same.name));
        }
        if there.iter().any(|entry| entry.name == self.name) {
            return Err(anyhow!("a runner called {:?} is in {file} already: give this one another --name", self.name));
        }
        let mut settings = vec![
            Setting { path: &["name"], value: self.name.as_str().into() },
            Setting { path: &["url"], value: self.url.as_str().into() },
            Setting { path: &["executor"], value: self.executor.as_str().into() },
        ];
        settings.extend(self.settings.iter().cloned());
        append(&self.config_file, text, &self.template.clone().render(&settings, given)?)
    }

    async fn ask(&self, client: &Client, system_id: &SystemId) -> Result<Given, Failure> {
        let Registered { id, token, token_expires_at } = match &self.access {
            Access::Runner(token) => return self.verify(client, token, system_id).await,
            Access::RegistrationToken(token, registration) => client
                .register(token, registration)
                .await
                .map_err(|error| refusal("registration token", REGISTRATION_GONE, error))?,
            Access::Owner(token, scope, registration) => client
                .create_runner(token, *scope, registration)
                .await
                .map_err(|error| refusal("personal access token", PERSONAL_UNFIT, error))?,
        };
        Ok(Given { id: Some(id), token, obtained_at: Timestamp::now(), expires_at: token_expires_at })
    }

    async fn verify(&self, client: &Client, token: &SecretString, system_id: &SystemId) -> Result<Given, Failure> {
        match client.verify(token, Some(system_id)).await {
            Verified::Valid(Known { id, token_expires_at }) => {
                Ok(Given { id, token: token.clone(), obtained_at: Timestamp::now(), expires_at: token_expires_at })
            }
            Verified::Orphaned(reason) => {
                let told = format!("the runner belongs to no project or group in GitLab any more ({reason})");
                Err(Failure::Refused(told))
            }
            Verified::Invalid => {
                let advice = if is_authentication_token(token) {
                    "it is wrong, or the runner was deleted"
                } else {
                    "if it is a registration token, give it by --registration-token"
                };
                Err(Failure::Refused(format!("GitLab does not accept the runner's token: {advice}")))
            }
            Verified::Unknown(reason) => Err(anyhow!("the token cannot be verified: {reason}").into()),
        }
    }

    /// Says what is left of the runner.
    async fn take_back(&self, client: &Client, given: &Given, system_id: &SystemId) -> String {
        let id = given.id.map(|id| format!(" {id}")).unwrap_or_default();
        if let Access::Runner(token) = &self.access {
            if is_authentication_token(token) && !self.leave_runner {
                // The row of this manager, which the verification made; GitLab shows it as one that never came.
                let _ = client.unregister_manager(token, system_id).await;
            }
            return format!("runner{id} stays in GitLab as it was");
        }
        if self.leave_runner {
            return format!("runner{id} is left in GitLab, as --leave-runner says");
        }
        match client.unregister(&given.token).await {
            Ok(()) => format!("runner{id} was deleted in GitLab again"),
            Err(error) => format!("runner{id} could not be deleted in GitLab again ({error}): delete it there"),
        }
    }
}

const REGISTRATION_GONE: (u16, &str) = (
    410,
    "registration tokens are switched off there: create the runner in GitLab and give its glrt- token by --token, or \
     give a personal access token",
);
const PERSONAL_UNFIT: (u16, &str) = (401, "it needs the scope create_runner");

/// GitLab's no; anything else may pass.
pub fn is_no(error: &CallError) -> bool {
    matches!(error, CallError::Forbidden(_) | CallError::Refused { status: 400..=499, .. })
}

/// A refusal with its way out.
fn refusal(what: &str, (known, way_out): (u16, &str), error: CallError) -> Failure {
    match error {
        CallError::Forbidden(message) => Failure::Refused(format!("GitLab does not accept the {what}: {message}")),
        CallError::Refused { status, message } if status == known => {
            Failure::Refused(format!("GitLab does not accept the {what} ({message}): {way_out}"))
        }
        no if is_no(&no) => Failure::Refused(format!("GitLab refuses to make the runner: {no}")),
        other => Failure::Impossible(other.into()),
    }
}
