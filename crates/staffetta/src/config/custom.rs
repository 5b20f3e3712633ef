//! An entry with `executor = "custom"` whose commands are those of GitLab's Fargate driver: it runs natively, on the
//! `ecs.toml` that the commands name.

use std::path::{Path, PathBuf};

use aws::fargate::FargateConfig;

use super::ecs_toml::EcsToml;
use super::runner::Place;
use super::section::{Found, Section};
use super::{Outside, Remark};

/// One of the four commands, with its keys in `[runners.custom]` (protocol 9.1) and the driver's names for it.
struct Stage {
    exec: &'static str,
    args: &'static str,
    names: [&'static str; 2],
}

const PREPARE: Stage = Stage { exec: "prepare_exec", args: "prepare_args", names: ["prepare", "p"] };
const RUN: Stage = Stage { exec: "run_exec", args: "run_args", names: ["run", "r"] };
const STAGES: [Stage; 4] = [
    Stage { exec: "config_exec", args: "config_args", names: ["config", "co"] },
    PREPARE,
    RUN,
    Stage { exec: "cleanup_exec", args: "cleanup_args", names: ["cleanup", "cl"] },
];

/// They bound processes that are not started here.
const TIMEOUTS: [&str; 5] = [
    "config_exec_timeout",
    "prepare_exec_timeout",
    "cleanup_exec_timeout",
    "graceful_kill_timeout",
    "force_kill_timeout",
];

/// Answers nothing beside a mistake.
pub fn custom(section: &mut Section, outside: &Outside) -> Option<Place> {
    let Some(mut section) = section.section("custom") else {
        section.missing("custom", "add the [runners.custom] table with the commands of the Fargate driver");
        return None;
    };
    for key in TIMEOUTS {
        let _: Option<i64> = section.number(key, "a whole number of seconds");
    }
    let commands = STAGES.iter().filter_map(|stage| command(&mut section, stage)).collect::<Vec<_>>();
    let calls = calls(&mut section, &commands);
    let place = calls.and_then(|calls| {
        let file = one_file(&mut section, &calls)?;
        match (outside.ecs_toml)(&file) {
            Ok(ecs_toml) => Some(place(&mut section, &file, ecs_toml, &calls)),
            Err(mistakes) => {
                section.report.mistakes.extend(mistakes.0);
                None
            }
        }
    });
    section.finish(&[]);
    place
}

type Command = (&'static Stage, Found<Vec<String>>);
type Calls<'c> = Vec<(&'static Stage, usize, Call<'c>)>;

/// A command that the entry has, and its arguments.
fn command(section: &mut Section, stage: &'static Stage) -> Option<Command> {
    let exec = section.filled_text(stage.exec);
    let args = section.texts(stage.args);
    let Some(exec) = exec else {
        if stage.exec == RUN.exec {
            section.missing(RUN.exec, "name the Fargate driver, such as \"/opt/gitlab-runner/fargate\"");
        }
        return None;
    };
    Some((stage, args.unwrap_or(Found { value: Vec::new(), at: exec.at })))
}

/// All commands understood as calls of the driver. Of another program's entry only that is told.
fn calls<'c>(section: &mut Section, commands: &'c [Command]) -> Option<Calls<'c>> {
    let understood: Vec<_> = commands.iter().map(|(stage, args)| (stage, args.at, call(stage, &args.value))).collect();
    if !commands.is_empty() && understood.iter().all(|(.., call)| call.is_err()) {
        let message = "executor = \"custom\": the commands of [runners.custom] are not those of the Fargate driver, and Staffetta \
                       runs jobs on Fargate only. A driver for something else needs gitlab-runner";
        section.mistake(section.at, message);
        return None;
    }
    let mut calls = Vec::new();
    for (stage, at, call) in understood {
        match call {
            Ok(call) => calls.push((*stage, at, call)),
            Err(why) => {
                let message = format!(
                    "`{}` must call the Fargate driver as the other commands do, as in [\"--config\", \
                     \"/etc/gitlab-runner/ecs.toml\", \"custom\", \"{}\"]: {why}",
                    section.name_of(stage.args),
                    stage.names[0]
                );
                section.mistake(at, message);
            }
        }
    }
    (calls.len() == commands.len() && !calls.is_empty()).then_some(calls)
}

/// What a command says to the driver.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call<'c> {
    config: Option<&'c str>,
    task_definition: Option<&'c str>,
    platform_version: Option<&'c str>,
}

/// Reads arguments as the driver does: flags with one dash or two, `--flag value` or `--flag=value`, and the two words
/// `custom STAGE` or their short forms.
fn call<'c>(stage: &Stage, args: &'c [String]) -> Result<Call<'c>, String> {
    let mut call = Call::default();
    let mut words = Vec::new();
    let mut rest = args.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            words.push(arg);
            continue;
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        if name == "debug" {
            continue;
        }
        let value = value.or_else(|| rest.next()).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("{arg} has no value"))?;
        match name {
            "config" => call.config = Some(value),
            "task-def" => call.task_definition = Some(value),
            "platform-version" => call.platform_version = Some(value),
            // The manager's log is set by the keys of config.toml.
            "log-level" | "log-format" | "log-file" => {}
            _ => return Err(format!("{arg} is not a flag of the driver")),
        }
    }
    match words[..] {
        ["custom" | "c", word] if stage.names.contains(&word) => Ok(call),
        _ => Err(format!("`custom {}` is missing, or something stands beside it", stage.names[0])),
    }
}

/// The `ecs.toml` that all commands name.
fn one_file(section: &mut Section, calls: &Calls) -> Option<PathBuf> {
    let mut files = Vec::new();
    for (stage, at, call) in calls {
        let name = section.name_of(stage.args);
        match call.config.map(Path::new) {
            Some(file) if file.is_absolute() => files.push((name, *at, file)),
            // GitLab's runner starts each command in a folder of its own, so there a relative path never led anywhere.
            Some(file) => {
                let message = format!("`{name}` must name ecs.toml by an absolute path: {:?} is relative", file);
                section.mistake(*at, message);
            }
            None => {
                let message =
                    format!("`{name}` does not say where ecs.toml is: add \"--config\", \"/path/to/ecs.toml\"");
                section.mistake(*at, message);
            }
        }
    }
    let (first_name, _, first) = files.first()?.clone();
    for (name, at, file) in files.iter().filter(|(.., file)| *file != first) {
        let message =
            format!("`{name}` names {file:?}, but `{first_name}` names {first:?}: one runner has one ecs.toml");
        section.mistake(*at, message);
    }
    (files.len() == calls.len() && files.iter().all(|(.., file)| *file == first)).then(|| first.to_owned())
}

fn place(section: &mut Section, file: &Path, ecs_toml: EcsToml, calls: &Calls) -> Place {
    section.report.warnings.extend(ecs_toml.warnings);
    if ecs_toml.allowed_roles.is_some() {
        section.report.warnings.push(Remark {
            file: file.to_owned(),
            line: None,
            message: "`Fargate.AllowedRoles` has no effect here: every task is started by the manager's own role, also for a \
                      job that sets ROLE_ARN"
                .to_owned(),
        });
    }
    let mut fargate = ecs_toml.fargate;
    // Only `prepare` starts a task. Its flags win over the file, and over the variables of a job.
    if let Some((.., prepare)) = calls.iter().find(|(stage, ..)| stage.exec == PREPARE.exec) {
        if let Some(task_definition) = prepare.task_definition {
            fargate = FargateConfig {
                task_definition: task_definition.to_owned(),
                allowed_task_definitions: Some(Vec::new()),
                ..fargate
            };
        }
        if let Some(platform_version) = prepare.platform_version {
            fargate.platform_version = Some(platform_version.to_owned());
        }
    }
    Place { fargate, start_timeout: ecs_toml.start_timeout }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, Mistakes, ecs_toml, read};

    fn args(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn a_call_of_the_driver_is_known_by_its_arguments() {
        let plain = Call { config: Some("/e"), ..Call::default() };
        for text in [
            "--config /e custom run",
            "--config=/e custom run",
            "-config /e c r",
            "custom --config /e run",
            "custom run --config /e",
            "--debug --log-level debug --log-format=json --log-file /l --config /e custom run",
        ] {
            assert_eq!(call(&RUN, &args(text)).as_ref(), Ok(&plain), "{text}");
        }
        let chosen = Call { task_definition: Some("big:7"), platform_version: Some("1.4.0"), ..plain };
        let text = "--config /e --task-def big:7 --platform-version=1.4.0 custom prepare";
        assert_eq!(call(&PREPARE, &args(text)), Ok(chosen));
    }

    #[test]
    fn other_arguments_are_told_with_the_reason() {
        for (text, told) in [
            ("", "`custom run` is missing"),
            ("--config /e custom", "`custom run` is missing"),
            ("--config /e run", "`custom run` is missing"),
            ("--config /e custom prepare", "`custom run` is missing"),
            ("--config /e custom run more", "`custom run` is missing"),
            ("custom run --config", "--config has no value"),
            ("--config= custom run", "--config= has no value"),
            ("--domain ci custom run", "--domain is not a flag of the driver"),
        ] {
            let why = call(&RUN, &args(text)).expect_err(text);
            assert!(why.starts_with(told), "{text}: {why}");
        }
    }

    /// Byte for byte what an installation of GitLab's runner with the driver has before `register` fills in the rest.
    const OF_THE_DRIVER: &str = include_str!("../../../../examples/fargate-driver/config.toml");
    const ECS_TOML: &str = include_str!("../../../../examples/fargate-driver/ecs.toml");

    fn read(text: &str, ecs_toml: &str) -> Result<Loaded, Mistakes> {
        let ecs_toml = |file: &Path| {
            assert_eq!(file, Path::new("/etc/gitlab-runner/ecs.toml"));
            ecs_toml::read(file, ecs_toml)
        };
        let outside = Outside { environment: &|_| None, ecs_toml: &ecs_toml };
        read::read(Path::new("config.toml"), text, &outside)
    }

    fn mistakes(text: &str) -> String {
        read(text, ECS_TOML).map(|_| ()).unwrap_err().to_string()
    }

    /// As `register` leaves the file.
    fn registered(text: &str) -> String {
        text.replace("  executor", "  url = \"https://gitlab.example.com\"\n  token = \"glrt-abc\"\n  executor")
    }

    #[test]
    fn the_file_of_gitlabs_driver_lacks_only_what_register_fills_in() {
        let told = mistakes(OF_THE_DRIVER);
        insta::assert_snapshot!(told);

        let Loaded { config, warnings } = read(&registered(OF_THE_DRIVER), ECS_TOML).unwrap();
        let runner = &config.runners[0];
        assert_eq!(runner.fargate, ecs_toml::read(Path::new("ecs.toml"), ECS_TOML).unwrap().fargate);
        assert_eq!(runner.start_timeout, ecs_toml::START_TIMEOUT);
        assert_eq!(
            (runner.builds_dir.as_str(), runner.cache_dir.as_str()),
            ("/opt/gitlab-runner/builds", "/opt/gitlab-runner/cache")
        );
        let warnings: Vec<_> = warnings.iter().map(Remark::to_string).collect();
        assert_eq!(
            warnings,
            ["config.toml:4: `session_server` is understood but has no effect: there is no web terminal"]
        );
    }

    #[test]
    fn mistakes_of_both_files_are_told_at_once_each_with_its_own_lines() {
        let text = registered(OF_THE_DRIVER).replace("check_interval", "check_intervall");
        // Two entries name the same file, whose mistakes are told once.
        let twice = format!("{text}{}", &text[text.find("[[runners]]").unwrap()..]).replace("ec2-ecs", "x");
        let broken = ECS_TOML.replace("Cluster", "Clusters").replace("Port = 22", "Port = \"22\"");
        let told = read(&twice, &broken).map(|_| ()).unwrap_err().to_string();
        insta::assert_snapshot!(told);
    }

    #[test]
    fn commands_that_are_not_the_drivers_are_refused_by_name() {
        let text = registered(OF_THE_DRIVER);
        let ecs_toml = "/etc/gitlab-runner/ecs.toml";
        let told: Vec<_> = [
            text.replace("\"custom\", \"prepare\"", "\"prepare\""),
            text.replacen(ecs_toml, "ecs.toml", 1),
            text.replacen(&format!("\"--config\", \"{ecs_toml}\", "), "", 1),
            text.replacen(ecs_toml, "/other.toml", 3),
            text.replace("    run_exec = \"/opt/gitlab-runner/fargate\"\n", ""),
            text.replace("\"custom\"", "\"libvirt\"").replace("executor = \"libvirt\"", "executor = \"custom\""),
            text.replace("run_exec", "graceful_kill_timeout = \"1m\"\n    run_exec"),
            text.replace("run_exec", "run_exec_timeout = 60\n    run_exec"),
            text[..text.find("  [runners.custom]").unwrap()].to_owned(),
            text.replace("[runners.custom]", "[runners.fargate]"),
        ]
        .iter()
        .map(|text| mistakes(text))
        .collect();
        insta::assert_snapshot!(told.join("\n\n"));
    }

    #[test]
    fn what_the_commands_say_themselves_wins() {
        let text = registered(OF_THE_DRIVER)
            .replace(
                "\"custom\", \"prepare\"",
                "\"--task-def=big:7\", \"--platform-version\", \"1.4.0\", \"custom\", \"p\"",
            )
            .replace("run_exec", "graceful_kill_timeout = 60\n    force_kill_timeout = 5\n    run_exec");
        let fargate = read(&text, ECS_TOML).unwrap().config.runners.remove(0).fargate;
        assert_eq!((fargate.task_definition.as_str(), fargate.platform_version.as_deref()), ("big:7", Some("1.4.0")));
        let asked = fargate.choice(|name| (name == "FARGATE_TASK_DEFINITION").then(|| "other".to_owned()));
        assert!(asked.is_err(), "the driver's flag wins over the job's variable");
    }

    #[test]
    fn roles_that_only_the_driver_takes_are_told() {
        let ecs_toml = ECS_TOML.replace("EnablePublicIP", "AllowedRoles = []\nStartTimeout = \"2m\"\nEnablePublicIP");
        let Loaded { config, warnings } = read(&registered(OF_THE_DRIVER), &ecs_toml).unwrap();
        assert_eq!(config.runners[0].start_timeout.as_secs(), 120);
        assert!(
            warnings[1].to_string().contains("ecs.toml: `Fargate.AllowedRoles` has no effect here"),
            "{warnings:?}"
        );
    }
}
