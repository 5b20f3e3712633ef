//! The scripts that stages run, as GitLab's runner writes them (protocol 7.2).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use job::trace::line;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::workspace::Environment;

/// Where a shell is looked for, in GitLab's order (protocol 7.2.5). Where there is no other, ash will do.
const PLACES: [&str; 9] = [
    "/usr/local/bin/bash",
    "/usr/bin/bash",
    "/bin/bash",
    "/usr/local/bin/sh",
    "/usr/bin/sh",
    "/bin/sh",
    "/busybox/sh",
    "/usr/bin/ash",
    "/bin/ash",
];

/// Linux gives no longer string to a new process: 128 KiB, with the NUL at its end.
const LONGEST_STRING: usize = 128 * 1024 - 1;

/// The first shell of this image; only one of the `configured` name, unless that is empty.
pub fn detect(configured: &str) -> Option<PathBuf> {
    let wanted = |path: &&Path| configured.is_empty() || path.ends_with(configured);
    first_of(PLACES.map(Path::new).into_iter().filter(wanted))
}

fn first_of<'a>(mut places: impl Iterator<Item = &'a Path>) -> Option<PathBuf> {
    let executable =
        |path: &&Path| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    places.find(executable).map(Path::to_owned)
}

/// Takes the variables that are too long for a process and gives the commands by which a shell has them nevertheless,
/// as it would under GitLab's runner: what it starts cannot have them there either.
pub fn take_long(environment: &mut Environment) -> String {
    let fits = |key: &OsString, value: &OsString| key.len() + 1 + value.len() <= LONGEST_STRING;
    let long = environment.extract_if(.., |key, value| !fits(key, value));
    long.map(|(key, value)| format!("export {}={}\n", key.display(), quote(&value.to_string_lossy()))).collect()
}

/// One word of a shell's language, whatever `text` contains.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A command that prints `text` and a line feed. Not `echo`: sh reads backslashes in it.
pub fn print(text: &str) -> String {
    format!("printf '%s\\n' {}\n", quote(text))
}

/// A command that prints one of the runner's lines, which ends with its own line feed.
pub fn print_line(line: &str) -> String {
    print(line.trim_end_matches('\n'))
}

/// How a job's commands are shown and checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo {
    /// `FF_SCRIPT_SECTIONS`, where the server understands sections.
    pub sections: bool,
    /// `FF_ENABLE_BASH_EXIT_CODE_CHECK`.
    pub check_exit_codes: bool,
}

/// The commands of a script, each shown before it runs (protocol 7.2.4). `kind` names their sections.
pub fn commands(script: &[String], kind: &str, echo: Echo) -> String {
    let mut text = String::new();
    for (index, command) in script.iter().enumerate() {
        let command = command.trim();
        match command.split_once('\n') {
            _ if command.is_empty() => text.push_str("echo\n"),
            None => text.push_str(&print_line(&line::command(command))),
            Some(_) if echo.sections => {
                let section = format!("section_{kind}_{index}");
                text.push_str(&marker("start", &section, "[hide_duration=true,collapsed=true]"));
                text.push_str(&print_line(&line::command(command)));
                text.push_str(&marker("end", &section, ""));
            }
            Some((first, _)) => {
                text.push_str(&print_line(&line::command(&format!(
                    "{} # collapsed multi-line command",
                    first.trim_end()
                ))));
            }
        }
        text.push_str(command);
        text.push('\n');
        if echo.check_exit_codes && !command.is_empty() {
            text.push_str("_runner_exit_code=$?; if [ $_runner_exit_code -ne 0 ]; then exit $_runner_exit_code; fi\n");
        }
    }
    text
}

/// A section marker whose time the shell tells: the script is written before it runs.
fn marker(kind: &str, section: &str, options: &str) -> String {
    format!("printf 'section_{kind}:%s:{section}{options}\\r\\033[0K' \"$(date +%s)\"\n")
}

/// How a script runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    /// `CI_DEBUG_TRACE`: the shell prints each command that it runs.
    pub trace: bool,
    /// `FF_USE_LEGACY_BASH_EVAL`: standard input is a pipe that is closed, not `/dev/null`.
    pub legacy_eval: bool,
}

impl Frame {
    /// The whole input of a shell. The body is read completely before any of it runs, and its own input is empty, so
    /// that no command can read the script away. `exports` come before anything is printed.
    pub fn around(self, exports: &str, body: &str) -> String {
        let xtrace = if self.trace { "set -o xtrace\n" } else { "" };
        let body = quote(&format!("{xtrace}{body}"));
        // The trap keeps bash from printing the script when it is told to end.
        let run = match self.legacy_eval {
            true => format!(": | eval {body}"),
            false => format!("(trap 'exit 1' TERM; eval {body}) </dev/null"),
        };
        // Not every sh knows pipefail.
        format!(
            "trap 'exit 1' TERM\n\
             {exports}\
             if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi\n\
             set -o errexit\n\
             set +o noclobber\n\
             {run}\n\
             exit 0\n"
        )
    }
}

/// A file in memory with the script: a shell's standard input that no other user and no disk ever sees.
/// Unlike a pipe it can be read in large pieces.
pub fn in_memory(script: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("script", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(script.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    const SHELLS: [&str; 2] = ["/bin/bash", "/bin/dash"];

    fn run(shell: &str, body: &str) -> Output {
        run_in(Frame::default(), shell, body)
    }

    fn run_in(frame: Frame, shell: &str, body: &str) -> Output {
        let input = in_memory(&frame.around("", body)).expect("a file in memory");
        Command::new(shell).stdin(input).output().expect("a shell")
    }

    fn script(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        commands(&lines, "script_step", Echo::default())
    }

    fn out(output: &Output) -> String {
        String::from_utf8(output.stdout.clone()).expect("text")
    }

    #[test]
    fn commands_are_shown_in_green_before_they_run() {
        for shell in SHELLS {
            let output = run(shell, &script(&[r"printf '%s\n' 'a\tb'", "", "  for i in 1 2\ndo echo $i\ndone\n"]));
            assert_eq!(
                out(&output),
                "\x1b[32;1m$ printf '%s\\n' 'a\\tb'\x1b[0;m\na\\tb\n\n\
                 \x1b[32;1m$ for i in 1 2 # collapsed multi-line command\x1b[0;m\n1\n2\n",
                "{shell}"
            );
            assert!(output.status.success());
        }
    }

    #[test]
    fn the_first_failing_command_ends_the_script_with_its_code() {
        for shell in SHELLS {
            let output = run(shell, &script(&["true", "(exit 42)", "echo never"]));
            assert_eq!(output.status.code(), Some(42), "{shell}");
            assert!(!out(&output).contains("\nnever"));
            assert_eq!(run(shell, &script(&["exit 3"])).status.code(), Some(3), "{shell}");
            assert_eq!(run(shell, &script(&["false || true"])).status.code(), Some(0), "{shell}");
        }
    }

    #[test]
    fn bash_fails_with_the_first_command_of_a_pipe() {
        assert_eq!(run("/bin/bash", &script(&["(exit 5) | cat"])).status.code(), Some(5));
    }

    #[test]
    fn commands_cannot_read_the_script() {
        for shell in SHELLS {
            let output = run(shell, &script(&["cat", "echo after"]));
            assert!(out(&output).ends_with("\nafter\n"), "{shell}: {}", out(&output));
        }
    }

    #[test]
    fn the_legacy_eval_runs_the_same_script_behind_a_closed_pipe() {
        let legacy = Frame { legacy_eval: true, ..Frame::default() };
        for shell in SHELLS {
            let output =
                run_in(legacy, shell, &script(&["cat", "test -p /dev/stdin && echo pipe", "exit 4", "echo never"]));
            assert_eq!(output.status.code(), Some(4), "{shell}");
            assert!(
                out(&output).contains("\npipe\n") && !out(&output).contains("\nnever"),
                "{shell}: {}",
                out(&output)
            );
        }
    }

    #[test]
    fn a_command_that_a_signal_ends_counts_as_in_any_shell() {
        for shell in SHELLS {
            assert_eq!(run(shell, &script(&["sh -c 'kill -TERM $$'"])).status.code(), Some(143), "{shell}");
        }
    }

    #[test]
    fn scripts_of_nothing_succeed() {
        for shell in SHELLS {
            for lines in [&[] as &[&str], &[""], &["  \n\t "], &["# only a remark"]] {
                assert!(run(shell, &script(lines)).status.success(), "{shell} {lines:?}");
            }
        }
    }

    #[test]
    fn output_may_go_into_files_that_exist() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        let body = script(&[&format!("echo 1 > {0}; echo 2 > {0}", file.display())]);
        for shell in SHELLS {
            let options = if shell.ends_with("bash") { "set -o noclobber\n" } else { "set -C\n" };
            let input = in_memory(&format!("{options}{}", Frame::default().around("", &body))).expect("a file");
            assert!(Command::new(shell).stdin(input).output().expect("a shell").status.success(), "{shell}");
        }
    }

    #[test]
    fn a_variable_that_is_too_long_for_a_process_is_there_in_the_shell() {
        let long = "it's long ".repeat(20_000);
        for shell in SHELLS {
            let mut environment =
                Environment::from([("SHORT".into(), "1".into()), ("LONG".into(), long.clone().into())]);
            let exports = take_long(&mut environment);
            assert_eq!(environment.len(), 1);
            let input = in_memory(&Frame::default().around(&exports, "echo ${#LONG} $SHORT\n")).expect("a file");
            let output = Command::new(shell).envs(environment).stdin(input).output().expect("a shell");
            assert_eq!(out(&output), "200000 1\n", "{shell}");
        }
    }

    #[test]
    fn variables_live_from_one_command_to_the_next() {
        for shell in SHELLS {
            let output = run(shell, &script(&["A='it'\"'\"'s'", "export A", "cd /", "echo \"$A in $(pwd)\""]));
            assert!(out(&output).ends_with("\nit's in /\n"), "{shell}: {}", out(&output));
        }
    }

    #[test]
    fn with_exit_code_checks_a_failure_ends_the_script_even_without_errexit() {
        let lines = ["set +e".to_owned(), "(exit 9)".to_owned(), "echo never".to_owned()];
        let echo = Echo { check_exit_codes: true, ..Echo::default() };
        assert_eq!(run("/bin/bash", &commands(&lines, "script_step", echo)).status.code(), Some(9));
    }

    #[test]
    fn a_long_command_can_be_shown_whole_in_a_section() {
        let lines = ["echo a\necho b".to_owned()];
        let echo = Echo { sections: true, ..Echo::default() };
        let shown = out(&run("/bin/dash", &commands(&lines, "script_step", echo)));
        assert!(shown.starts_with("section_start:"), "{shown:?}");
        assert!(shown.contains(
            ":section_script_step_0[hide_duration=true,collapsed=true]\r\x1b[0K\x1b[32;1m$ echo a\necho b\x1b[0;m\n"
        ));
        assert!(shown.ends_with(":section_script_step_0\r\x1b[0Ka\nb\n"), "{shown:?}");
    }

    #[test]
    fn a_shell_is_found_in_gitlabs_order() {
        assert!(detect("").expect("a shell").ends_with("bash"));
        assert!(detect("bash").expect("a shell").ends_with("bash"));
        assert!(detect("sh").expect("a shell").ends_with("sh"));
        assert_eq!(detect("pwsh"), None);
        assert_eq!(first_of([Path::new("/nowhere/sh"), Path::new("/etc/passwd"), Path::new("/tmp")].into_iter()), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn any_text_survives_quoting(text in "[^\0]{0,60}") {
            for shell in SHELLS {
                let output = run(shell, &format!("printf %s {}", quote(&text)));
                assert_eq!(out(&output), text);
            }
        }
    }
}
