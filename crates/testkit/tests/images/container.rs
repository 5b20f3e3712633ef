//! Starts programs as the first process of namespaces of their own, as a container runtime does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use testkit::{PATIENCE, eventually};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::build::Image;

/// `$1` is the root, read-only but for the volume `$2` at `$3`; `$4` is the user.
const ENTER: &str = r#"set -eu
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
[ -z "$3" ] || mount --bind "$2" "$1$3"
mount -o remount,bind,ro "$1"
root=$1 user=$4
shift 4
exec chroot --userspec="$user" "$root" "$@""#;

pub struct Container {
    child: Child,
    output: PathBuf,
    _folder: TempDir,
}

impl Container {
    /// With these variables beside the image's own, and these arguments in the place of its `CMD` if there are any.
    /// `volume` is mounted on the image's volume.
    pub fn start(image: &Image, volume: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let point = image.config["Volumes"].as_object().and_then(|points| points.keys().next().cloned());
        let user = image.config["User"].as_str().filter(|user| !user.is_empty()).unwrap_or("0:0");
        let command = if arguments.is_empty() { image.words("Cmd") } else { arguments.to_vec() };
        let own = image.words("Env").into_iter().filter_map(|variable| variable.split_once('='));
        let variables: Vec<_> = own.chain(variables.iter().copied()).collect();
        let mut words = vec![image.root.to_str().expect("UTF-8"), volume.to_str().expect("UTF-8")];
        words.extend([point.as_deref().unwrap_or_default(), user]);
        words.extend(image.words("Entrypoint"));
        words.extend(command);
        Self::run(ENTER, &words, &variables)
    }

    /// A shell script that ends with `exec`, with these arguments and variables and no others.
    pub fn run(script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("output");
        let file = File::create(&output).expect("a file");
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script, "sh"]).args(arguments);
        command.env_clear().envs(variables.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
        let child = command.spawn().expect("unshare: `make test` installs util-linux");
        Self { child, output, _folder: folder }
    }

    /// The first process, as it is numbered out here; none when it has ended.
    pub fn first_process(&self) -> Option<Pid> {
        let unshare = self.child.id()?;
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
        children.trim().parse().ok().map(Pid::from_raw)
    }

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).expect("the output")).into_owned()
    }

    pub async fn until_said(&mut self, text: &str) {
        while !self.said().contains(text) {
            let ended = timeout(std::time::Duration::from_millis(20), self.child.wait()).await.is_ok();
            assert!(!ended || self.said().contains(text), "it ended and never said {text:?}:\n{}", self.said());
        }
    }

    pub fn terminate(&self) {
        kill(self.first_process().expect("it runs"), Signal::SIGTERM).expect("a signal");
    }

    /// How it ended, and all that it said.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it never ends:\n{}", self.said())).expect("a status");
        (status, self.said())
    }

    /// Makes a process of the container an orphan, so that it becomes a child of the first one, and ends it: a first
    /// process that did not bury it would keep it for ever.
    pub async fn must_bury_an_orphan(&self) {
        let first = self.first_process().expect("it runs");
        let children = || fs::read_to_string(format!("/proc/{first}/task/{first}/children")).expect("it runs");
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &first.to_string(), "--pid", "/bin/sh", "-c", "exec 3<&0; cat <&3 >/dev/null &"]);
        let mut parent = enter.stdin(Stdio::piped()).spawn().expect("nsenter: `make test` installs util-linux");
        let input = parent.stdin.take();
        assert!(parent.wait().await.expect("a status").success());
        assert_eq!(children().split_whitespace().count(), 1, "the orphan lives while it has input");
        drop(input);
        eventually("the orphan is buried", || children().is_empty()).await;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Changing the user makes the kernel forget that this process is to die with unshare.
        if let Some(first) = self.first_process() {
            let _ = kill(first, Signal::SIGKILL);
        }
    }
}
