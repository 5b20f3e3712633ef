#!/bin/sh
# Starts sshd for the job of this task. Only the key in SSH_PUBLIC_KEY, which the manager sets, is let in.
#   STAFFETTA_LISTEN  ADDRESS:PORT to listen on [default: all addresses, port 22; port 2222 without root]
set -eu
umask 077

fail() {
    echo "docker-entrypoint.sh: $1" >&2
    exit 1
}

[ -n "${SSH_PUBLIC_KEY:-}" ] || fail "SSH_PUBLIC_KEY is not set: the manager, or GitLab's Fargate driver, sets it in the container ci-coordinator"
user=$(id -un 2>/dev/null) || fail "user $(id -u) is not in /etc/passwd, and sshd lets nobody in who is not: use the user ci, or add this one"
[ -w "${HOME:-}" ] || fail "user $user cannot write to its home ${HOME:-} (HOME), where the key must go"

mkdir -p "$HOME/.ssh"
printf '%s\n' "$SSH_PUBLIC_KEY" >"$HOME/.ssh/authorized_keys"
unset SSH_PUBLIC_KEY

# New for each container: a key in the image would be the same for all, and known to everybody who has the image.
host_key=$HOME/.ssh/host_key
rm -f "$host_key" "$host_key.pub"
ssh-keygen -q -t ed25519 -N '' -C '' -f "$host_key"

port=2222
if [ "$(id -u)" = 0 ]; then
    port=22
    # Where sshd locks up its unprivileged half.
    mkdir -p /run/sshd
    chmod 755 /run/sshd
fi
set -- -o Port="$port"
[ -z "${STAFFETTA_LISTEN:-}" ] || set -- -o ListenAddress="$STAFFETTA_LISTEN"

# The files of jobs are to have usual modes.
umask 022
exec /usr/sbin/sshd -D -e "$@" \
    -o HostKey="$host_key" -o AuthorizedKeysFile="$HOME/.ssh/authorized_keys" -o AllowUsers="$user"
