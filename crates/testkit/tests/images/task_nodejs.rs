//! The entrypoint and the sshd_config of the task image, with this machine's sshd: the image itself needs a base image
//! from a registry. Everything that the script writes goes to file systems of its own.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::{fs, str};

use tempfile::TempDir;

use crate::agent::free_address;
use crate::build::run;
use crate::container::Container;

/// `$1` has the files, `$2` is the user. As in the image: an account each, both without a password.
const ENTER: &str = r#"set -eu
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=700 tmpfs /root
mount -t tmpfs -o mode=755 tmpfs /home
install -d -o 1000 -g 1000 -m 700 /home/ci
for file in passwd shadow group ssh/sshd_config; do mount --bind "$1/$(basename $file)" "/etc/$file"; done
cd /
exec setpriv --reuid="$2" --regid="$2" --clear-groups "$1/docker-entrypoint.sh""#;

const PASSWD: &str =
    "root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\nci:x:1000:1000::/home/ci:/bin/sh\n";
const SHADOW: &str = "root:*:20000:0:99999:7:::\nsshd:*:20000:0:99999:7:::\nci:*:20000:0:99999:7:::\n";
const GROUP: &str = "root:x:0:\nshadow:x:42:\nci:x:1000:\nnogroup:x:65534:\n";

struct Task {
    container: Container,
    address: SocketAddr,
    folder: TempDir,
}

fn folder() -> TempDir {
    assert!(Path::new("/usr/sbin/sshd").exists(), "sshd is missing: `make test` installs openssh-server");
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/task-nodejs");
    for name in ["docker-entrypoint.sh", "sshd_config"] {
        fs::copy(image.join(name), folder.path().join(name)).expect("a file of the image");
    }
    for (name, text) in [("passwd", PASSWD), ("shadow", SHADOW), ("group", GROUP)] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    for name in ["key", "another"] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(name)));
    }
    folder
}

fn enter(folder: &TempDir, uid: &str, variables: &[(&str, &str)]) -> Container {
    let home = if uid == "0" { "/root" } else { "/home/ci" };
    let usual = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", home)];
    let arguments = [folder.path().to_str().expect("UTF-8"), uid];
    Container::run(ENTER, &arguments, &[&usual, variables].concat())
}

impl Task {
    async fn start(uid: &str) -> Self {
        let folder = folder();
        let key = fs::read_to_string(folder.path().join("key.pub")).expect("a key");
        let address = free_address();
        let variables = [("SSH_PUBLIC_KEY", key.trim()), ("STAFFETTA_LISTEN", &address.to_string())];
        let mut container = enter(&folder, uid, &variables);
        container.until_said("Server listening").await;
        Self { container, address, folder }
    }

    fn ssh(&self, key: &str, user: &str, arguments: &[&str]) -> Output {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-i", &at(key)])
            .args(["-o", &format!("UserKnownHostsFile={}", at("known_hosts")), "-o", "IdentitiesOnly=yes"])
            .args(["-p", &self.address.port().to_string()])
            .args(["-l", user, "127.0.0.1"])
            .args(arguments)
            .output()
            .expect("ssh: `make test` installs openssh-client")
    }

    async fn serves(self, user: &str) {
        let output =
            self.ssh("key", user, &["id -un; umask; echo $LANG; echo ${SSH_PUBLIC_KEY:-no key}; ls -A ~/.ssh"]);
        let said = str::from_utf8(&output.stdout).expect("UTF-8");
        let expected = format!("{user}\n0022\nC.UTF-8\nno key\nauthorized_keys\nhost_key\nhost_key.pub\n");
        assert_eq!(said, expected, "{output:?} {}", self.container.said());

        let refused = self.ssh("another", user, &["true"]);
        let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(255), "{reason}");
        // The methods that are left stand in the brackets: no password, no questions.
        assert!(reason.contains("Permission denied (publickey)."), "{reason}");
        let forwarded = self.ssh("key", user, &["-W", &self.address.to_string()]);
        assert!(String::from_utf8_lossy(&forwarded.stderr).contains("prohibited"), "{forwarded:?}");

        let known = fs::read_to_string(self.folder.path().join("known_hosts")).expect("known_hosts");
        assert!(known.lines().all(|line| line.contains(" ssh-ed25519 ")), "{known}");
        self.container.terminate();
        let (status, said) = self.container.ended().await;
        assert_eq!(status.code(), Some(0), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn as_root_sshd_lets_in_the_key_of_the_task_and_nothing_else() {
    Task::start("0").await.serves("root").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn without_root_it_does_the_same() {
    Task::start("1000").await.serves("ci").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, buildah and the static programs: run by `make test`"]
async fn what_is_missing_is_told_in_one_sentence() {
    let key = [("SSH_PUBLIC_KEY", "ssh-ed25519 AAAA")];
    let nowhere = [key[0], ("HOME", "/proc")];
    for (uid, variables, reason) in [
        ("0", &[][..], "SSH_PUBLIC_KEY is not set"),
        ("4321", &key[..], "user 4321 is not in /etc/passwd"),
        ("1000", &nowhere[..], "cannot write to its home /proc"),
    ] {
        let (status, said) = enter(&folder(), uid, variables).ended().await;
        assert_eq!((status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}
