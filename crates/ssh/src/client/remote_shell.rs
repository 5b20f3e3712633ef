//! The command lines for a task's sshd. What they say is seen by every process of the task, so no script is among it.

/// Gives the shell what ECS gave to the container and sshd did not pass on: without it a script cannot use its task
/// role. Only from a process that [`job::task::JOB`] shows to be the container's, and only from the nearest one: where
/// a task is not isolated, the credentials of whoever started everything stand further up. What the session has
/// already is kept. sshd's own title lies over its environment, so it is not looked at; where sshd is the container's
/// first process there is nothing to be found.
///
/// Each variable stays one word, whatever is in it: entries are lines here, and a line end within one is a \001. Only
/// names of harmless letters reach `eval`.
///
/// Then it is a login shell that reads the script, like the session's shell of GitLab's own driver and the `-l` of
/// gitlab-runner's SSH executor: sshd forgets the image's PATH, and a login shell reads it from the image's profile.
const SCRIPT_SHELL: &str = r#"set -f
IFS="
"
set -- $(
  pid=$PPID
  while [ "${pid:-0}" -gt 0 ]; do
    parent= entries=
    look=yes
    while read -r line; do
      case "$line" in
        (Name:?sshd*) look= ;;
        (PPid:*) parent=${line#PPid:?}; break ;;
      esac
    done < "/proc/$pid/status"
    [ -z "$look" ] || entries=$(tr "\000\n" "\n\001" < "/proc/$pid/environ")
    case "$IFS$entries" in (*"${IFS}MARKER="*)
      for entry in $entries; do
        name=${entry%%=*}
        case "$name" in
          (*[!A-Za-z0-9_]*) continue ;;
          (AWS_*|ECS_*) ;;
          (*) continue ;;
        esac
        eval "[ \"\${$name+set}\" ]" && continue
        printf "%s\n" "$entry"
      done
      break ;;
    esac
    pid=$parent
  done 2>/dev/null
)
[ $# -eq 0 ] || export "$@"
if command -v bash >/dev/null 2>&1; then exec bash --login; fi
exec sh -l"#;

/// Sends a signal to the process group of every other command of this connection: they all have one parent. OpenSSH
/// up to 9.7 refuses SSH's own signals to whoever came in as root, which is whom most images let in.
const SIGNAL: &str = r#"none=1
for process in /proc/[0-9]*; do
  pid=${process#/proc/}
  [ "$pid" = $$ ] && continue
  while read -r line; do
    case "$line" in (PPid:*) [ "${line#PPid:?}" = $PPID ] && kill "-$1" "-$pid" && none=0; break ;; esac
  done < "$process/status"
done 2>/dev/null
exit $none"#;

/// The command line of a shell that reads a script from its input: bash if the image has one, else `sh`. It knows
/// the task's role.
pub fn script_shell() -> String {
    posix(&SCRIPT_SHELL.replace("MARKER", job::task::JOB), "")
}

/// Sends the signal `name`, without its `SIG`. Exits with 0 if there was a command to send it to.
pub(super) fn signal(name: &str) -> String {
    posix(SIGNAL, name)
}

/// The user's login shell may be any: it only starts the one that our scripts are written for.
pub(super) fn posix(script: &str, arguments: &str) -> String {
    debug_assert!(!script.contains('\''), "the quotes around the script are single ones");
    format!("exec sh -c '{script}' sh {arguments}")
}
