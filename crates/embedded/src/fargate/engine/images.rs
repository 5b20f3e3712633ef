//! The two built-in images. There is no registry: an image is a name for what is started.

/// What a container of a task starts when its definition gives no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// Our agent, as its own SSH server.
    Agent,
    /// OpenSSH, started as the Fargate driver's images do it; the agent is not in it.
    Sshd,
}

impl Image {
    /// The built-in image of this name, with any tag.
    pub(crate) fn find(name: &str) -> Option<Image> {
        match name.split_once(':').map_or(name, |(repository, _tag)| repository) {
            "staffetta/agent" => Some(Image::Agent),
            "staffetta/sshd" => Some(Image::Sshd),
            _ => None,
        }
    }

    /// The command of the image itself; `agent` is where the task sees the agent.
    pub(super) fn command(self, agent: &str) -> Vec<String> {
        match self {
            Image::Agent => vec![agent.into(), "serve".into()],
            Image::Sshd => vec!["/bin/sh".into(), "-c".into(), SSHD_ENTRYPOINT.into()],
        }
    }
}

/// `exec` stands for the `tini` of the real images: a SIGTERM for the first process ends sshd, not just a shell.
/// No configuration of this machine is read, and the host key is new for each task. PAM matters for root only: without
/// it sshd refuses a root account whose password is locked. A session starts with an empty environment, so a task
/// whose HOME is not that of the user database has to pass it on.
const SSHD_ENTRYPOINT: &str = r#"set -eu
umask 077
mkdir -p "$HOME/.ssh"
echo "$SSH_PUBLIC_KEY" > "$HOME/.ssh/authorized_keys"
unset SSH_PUBLIC_KEY
keys=$(mktemp -d)
ssh-keygen -q -t ed25519 -N '' -f "$keys/host_key"
pam=no
if [ "$(id -u)" = 0 ]; then pam=yes; mkdir -p -m 755 /run/sshd; fi
set -- -o ListenAddress="${STAFFETTA_LISTEN%:*}" -o Port="${STAFFETTA_LISTEN##*:}" -o HostKey="$keys/host_key" \
  -o AuthorizedKeysFile="$HOME/.ssh/authorized_keys" -o UsePAM=$pam -o StrictModes=no -o PidFile=none \
  -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o PrintMotd=no -o MaxStartups=100 \
  -o Subsystem="sftp internal-sftp"
if [ -n "${TMPDIR:-}" ]; then set -- "$@" -o SetEnv="HOME=$HOME TMPDIR=$TMPDIR"; fi
umask 022
exec /usr/sbin/sshd -D -e -f /dev/null "$@"
"#;
