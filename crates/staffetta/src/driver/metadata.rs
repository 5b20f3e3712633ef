//! What one call of the driver leaves for the next: a file for each job, with the key of its task in it.
//!
//! The first three fields are those of GitLab's Fargate driver, so each of the two understands the other's files: a
//! job that is under way while one replaces the other is still cleaned up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use job::ids::TaskArn;
use job::secret::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Failure;
use super::job::Role;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// Empty until ECS has named the task: a call that was killed in between left a task that ECS knows by its job.
    #[serde(rename = "TaskARN", default)]
    pub task_arn: String,
    /// Empty until the task was reached.
    #[serde(rename = "ContainerIP", default)]
    pub container_ip: String,
    /// The PEM text of the private key; in base64 in the file, since it is bytes to GitLab's driver.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub private_key: SecretString,
    /// `ssh-ed25519 AAAA…`, as it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Where the task is, should `ecs.toml` change while the job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// As whom ECS was asked for the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl Metadata {
    pub fn arn(&self) -> Option<TaskArn> {
        (!self.task_arn.is_empty()).then(|| TaskArn::new(&self.task_arn))
    }

    pub fn address(&self) -> Option<IpAddr> {
        self.container_ip.parse().ok()
    }
}

fn to_base64<S: Serializer>(key: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(key.expose_secret()))
}

/// Go's empty byte slice is `null`.
fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| serde::de::Error::custom("PrivateKey is not base64"))?;
    // Without the value: it is a secret.
    let text = String::from_utf8(bytes).map_err(|_| serde::de::Error::custom("PrivateKey is not text"))?;
    Ok(text.into())
}

/// The file of one job.
pub struct Store {
    directory: PathBuf,
    name: String,
}

/// What stands in the file.
pub enum Kept {
    Nothing,
    /// It is there and no use: the reason.
    Unreadable(String),
    Metadata(Box<Metadata>),
}

impl Store {
    pub fn new(directory: &Path, identifier: &str) -> Self {
        Self { directory: directory.to_owned(), name: format!("{identifier}.json") }
    }

    fn file(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// Where the file is written before it takes its name. Always the same: a call that was killed leaves no more
    /// than one, and the next one takes it.
    fn unfinished(&self) -> PathBuf {
        self.directory.join(format!("{}.part", self.name))
    }

    pub fn read(&self) -> Result<Kept, Failure> {
        let text = match fs::read(self.file()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::Nothing),
            Err(error) => return Err(self.failure("read", &error)),
        };
        Ok(match serde_json::from_slice(&text) {
            Ok(metadata) => Kept::Metadata(Box::new(metadata)),
            Err(error) => Kept::Unreadable(format!("{} is damaged: {error}", self.file().display())),
        })
    }

    /// Whole or not at all, and only for its owner's eyes: there is a private key in it.
    pub fn write(&self, metadata: &Metadata) -> Result<(), Failure> {
        let text = serde_json::to_vec(metadata).map_err(|error| Failure::System(format!("the metadata: {error}")))?;
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            let unfinished = self.unfinished();
            // Not written over: another user's file of this name would stay theirs.
            remove(&unfinished)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&unfinished, self.file())?;
            // So that the name survives a crash too.
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error| self.failure("write", &error))
    }

    pub fn remove(&self) -> Result<(), Failure> {
        let both = remove(&self.unfinished()).and_then(|()| remove(&self.file()));
        both.map_err(|error| self.failure("remove", &error))
    }

    fn failure(&self, what: &str, error: &io::Error) -> Failure {
        Failure::System(format!(
            "cannot {what} the metadata file {}: {error}. `Directory` in [TaskMetadata] of ecs.toml must be a folder \
             that the user of gitlab-runner may read and write",
            self.file().display()
        ))
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
