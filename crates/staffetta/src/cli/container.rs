//! `staffetta container`: the entry point of the manager's image, where there is no shell that could do this.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::Context;
use clap::Args;
use job::secret::ExposeSecret;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::Pid;

use crate::container::{Outside, TOKEN, start};
use crate::registration::new_version::NewVersion;

/// Make config.toml from the environment if there is none, then run the manager: the manager image's entry point
#[derive(Debug, Args)]
#[command(after_help = "Variables:
  GITLAB_URL, RUNNER_TAGS, SUBNET, SECURITY_GROUP_ID, AWS_REGION    needed
  RUNNER_TOKEN, or RUNNER_TOKEN_FILE                                needed; it is never written to a file
  CLUSTER, TASK_DEFINITION                                          default: names made of RUNNER_TAGS
  CONCURRENT                                                        jobs at once, default 10
  SSH_USER, SSH_PORT                                                default: root, 22
  CONFIG_TOML                                                       instead of all these: the whole config.toml
  CA_CERTIFICATES_PATH                                              a private authority that GitLab is trusted by
  LISTEN_ADDRESS                                                    where metrics are served, such as :9252

A config.toml that is there already is used as it is.

Example:
  docker run -e GITLAB_URL=https://gitlab.example.com -e RUNNER_TAGS=dev -e SUBNET=subnet-1 \\
    -e SECURITY_GROUP_ID=sg-1 -e AWS_REGION=eu-west-1 -e RUNNER_TOKEN staffetta/manager")]
pub struct Arguments {
    /// GitLab's config.toml
    #[arg(short, long, env = "CONFIG_FILE", value_name = "FILE", default_value = "/etc/gitlab-runner/config.toml")]
    config: PathBuf,
}

/// Does not come back when all is well: this process becomes `staffetta run`.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let file = arguments.config.as_path();
    let there = match fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
    };
    let outside = Outside {
        environment: &|name| env::var(name).ok().filter(|value| !value.is_empty()),
        read: &|path| fs::read_to_string(path),
    };
    let start = match start(there.as_deref(), &outside) {
        Ok(start) => start,
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("{mistake}");
            }
            eprintln!("staffetta: nothing was started; set the variables, or mount a {}", file.display());
            return Ok(ExitCode::from(super::UNUSABLE));
        }
    };
    if !start.without_effect.is_empty() {
        let names = start.without_effect.join(", ");
        match &start.config {
            Some(_) => eprintln!("staffetta: CONFIG_TOML says all; without effect: {names}"),
            None => eprintln!("staffetta: {} is there and used as it is; without effect: {names}", file.display()),
        }
    }
    if let Some(text) = start.config {
        NewVersion::of(file)
            .and_then(|place| place.write(|_| Ok(text)))
            .context("mount a volume there that this user may write to")?;
    }
    if Pid::this() == Pid::from_raw(1) {
        // The orphans of a container become children of its first process. The manager starts no process that it
        // waits for, so the kernel may bury them all; this setting outlives exec.
        // SAFETY: no handler is installed, so none can run at a wrong time.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.context("cannot ignore SIGCHLD")?;
    }
    let mut manager = Command::new(env::current_exe()?);
    manager.args([OsStr::new("run"), OsStr::new("--config"), file.as_os_str()]);
    if let Some(token) = &start.token {
        manager.env(TOKEN, token.expose_secret());
    }
    Err(manager.exec()).context("cannot become the manager")
}
