//! `staffetta deploy init`: asks what a deployment file cannot do without, and writes it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use gitlab::RunnerScope;

use crate::config;
use crate::deploy::file;
use crate::deploy::init::{Answers, Environment, Manager, render};
use crate::registration::ask;

/// What AWS is given to say whose account it is.
const IDENTITY: Duration = Duration::from_secs(10);

/// Write a commented deployment file
#[derive(Debug, Args)]
#[command(after_help = "What is not given is asked for, where there is a terminal. The account and the region are by
default those that AWS's tools would use here. VALUE holds for all environments, ENVIRONMENT=VALUE
for one.

Exit codes: 0 written, 2 not written.

Examples:
  staffetta deploy init
  staffetta deploy init --non-interactive --gitlab-url https://gitlab.example.com --gitlab-group 42 \\
      --vpc vpc-1 --subnets subnet-1,subnet-2 --vpc production=vpc-2 --subnets production=subnet-3")]
pub struct Arguments {
    /// The file that is written
    #[arg(env = "STAFFETTA_FILE", value_name = "FILE", default_value = file::FILE)]
    file: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Ask nothing
    #[arg(short, long)]
    non_interactive: bool,
    /// The names of all that is made begin with it [default: ci]
    #[arg(long)]
    name: Option<String>,
    /// Address of GitLab, such as https://gitlab.example.com
    #[arg(long, value_name = "URL")]
    gitlab_url: Option<String>,
    /// Make the runners in this group of GitLab
    #[arg(long, value_name = "ID", conflicts_with = "gitlab_project")]
    gitlab_group: Option<u64>,
    /// Make the runners in this project of GitLab
    #[arg(long, value_name = "ID")]
    gitlab_project: Option<u64>,
    /// Who runs the managers [default: each]
    #[arg(long)]
    manager: Option<Mode>,
    /// With --manager own: the ARN of the role or user that it calls AWS as
    #[arg(long, value_name = "ARN")]
    principal: Option<String>,
    /// An environment; may be repeated [default: dev, staging, production]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    environment: Vec<String>,
    /// The AWS account
    #[arg(long, value_name = "[ENVIRONMENT=]ID")]
    account: Vec<String>,
    /// The AWS region
    #[arg(long, value_name = "[ENVIRONMENT=]REGION")]
    region: Vec<String>,
    /// A role that deploy and doctor take, for an environment in another account
    #[arg(long, value_name = "[ENVIRONMENT=]ARN")]
    deploy_role: Vec<String>,
    /// The VPC of the tasks
    #[arg(long, value_name = "[ENVIRONMENT=]ID")]
    vpc: Vec<String>,
    /// Subnets of that VPC, with commas
    #[arg(long, value_name = "[ENVIRONMENT=]IDS")]
    subnets: Vec<String>,
    /// Give tasks a public address: for public subnets without NAT
    #[arg(long)]
    assign_public_ip: bool,
    /// The image of the tasks
    #[arg(long, value_name = "[ENVIRONMENT=]IMAGE")]
    image: Vec<String>,
    /// A secret that has the runner's token, for one environment; needed with --manager own
    #[arg(long, value_name = "ENVIRONMENT=ARN")]
    runner_token_secret: Vec<String>,
    /// The network of a manager that is in another VPC than the tasks
    #[arg(long, value_name = "[ENVIRONMENT=]CIDR")]
    manager_cidr: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// One beside each environment
    Each,
    /// One for all
    Shared,
    /// A machine of your own
    Own,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if !arguments.force && arguments.file.exists() {
        return Err(is_there(&arguments.file));
    }
    let answers = answers(&arguments).await?;
    let text = render(&answers);
    let loaded = file::read(&arguments.file, &text).map_err(|mistakes| {
        // Its lines are not there for anybody to look at.
        let told: Vec<_> = mistakes.0.iter().map(|mistake| format!("  {}", mistake.message)).collect();
        anyhow!("nothing was written, since this would be wrong:\n{}", told.join("\n"))
    })?;
    write(&arguments, &text)?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let file = arguments.file.display();
    eprintln!("{file} is written. Look at it, then see what it would make:");
    let named = if arguments.file == Path::new(file::FILE) { String::new() } else { format!(" --file {file}") };
    println!("staffetta deploy plan{named}");
    Ok(ExitCode::SUCCESS)
}

fn is_there(file: &Path) -> anyhow::Error {
    anyhow!("{} is there already: name another file, or write over it with --force", file.display())
}

fn write(arguments: &Arguments, text: &str) -> anyhow::Result<()> {
    let file = &arguments.file;
    let mut options = OpenOptions::new();
    options.write(true);
    // Somebody may have written it while questions were answered.
    if arguments.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut opened = match options.open(file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(is_there(file)),
        opened => opened.with_context(|| format!("cannot write {}", file.display()))?,
    };
    opened.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
}

/// Values of one flag: for all environments, and for some.
struct Scoped<'a> {
    flag: &'static str,
    values: Vec<(Option<&'a str>, &'a str)>,
}

impl<'a> Scoped<'a> {
    fn of(flag: &'static str, given: &'a [String], environments: &[String]) -> anyhow::Result<Self> {
        let mut values = Vec::new();
        for text in given {
            values.push(match text.split_once('=') {
                Some((name, value)) if environments.iter().any(|known| known == name) => (Some(name), value),
                // ARNs may have one too.
                Some((name, _)) if file::name_mistake(name).is_none() => {
                    return Err(anyhow!(
                        "{flag} {text}: there is no environment {name}; there are {}",
                        environments.join(", ")
                    ));
                }
                _ => (None, text.as_str()),
            });
        }
        Ok(Self { flag, values })
    }

    fn for_all(&self) -> Option<String> {
        self.values.iter().rev().find(|(name, _)| name.is_none()).map(|(_, value)| (*value).to_owned())
    }

    fn only_for(&self, environment: &str) -> Option<String> {
        self.values.iter().rev().find(|(name, _)| *name == Some(environment)).map(|(_, value)| (*value).to_owned())
    }

    fn of_environment(&self, environment: &str) -> Option<String> {
        self.only_for(environment).or_else(|| self.for_all())
    }
}

/// Takes what is given, else asks, else notes what is missing.
struct Questions {
    asks: bool,
    missing: Vec<String>,
}

/// One of them.
struct Question<'a> {
    flag: &'a str,
    text: String,
    /// What nobody needs to be asked for.
    default: Option<String>,
    /// An answer that cannot be is asked for again: at the end all answers would be lost with it.
    can_be: &'a dyn Fn(&str) -> bool,
}

impl<'a> Question<'a> {
    fn new(flag: &'a str, text: impl Into<String>) -> Self {
        Self { flag, text: text.into(), default: None, can_be: &|_| true }
    }
}

impl Questions {
    async fn answer(&mut self, given: Option<String>, question: Question<'_>) -> anyhow::Result<String> {
        let Question { flag, text, default, can_be } = question;
        match (given, default) {
            (Some(given), _) => Ok(given),
            (None, default) if self.asks => loop {
                let answer = ask::text(&text, default.as_deref()).await?;
                if can_be(&answer) {
                    return Ok(answer);
                }
                eprintln!("{answer:?} cannot be one.");
            },
            (None, Some(default)) => Ok(default),
            (None, None) => {
                self.missing.push(format!("{flag}: {text}"));
                Ok(String::new())
            }
        }
    }

    /// About one environment. What holds for the one before is proposed to somebody, and taken for nobody.
    async fn about(
        &mut self,
        environment: &str,
        values: &Scoped<'_>,
        what: &str,
        default: Option<String>,
        can_be: &dyn Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let default = default.filter(|_| self.asks);
        let text = format!("{what} of {environment}");
        self.answer(values.of_environment(environment), Question { flag: values.flag, text, default, can_be }).await
    }
}

async fn answers(arguments: &Arguments) -> anyhow::Result<Answers> {
    let asks = !arguments.non_interactive && ask::is_possible();
    let mut questions = Questions { asks, missing: Vec::new() };
    let name = Question {
        default: Some("ci".into()),
        can_be: &|answer| file::name_mistake(answer).is_none(),
        ..Question::new("--name", "Name, with which the names of all that is made begin")
    };
    let name = questions.answer(arguments.name.clone(), name).await?;
    let url = Question {
        can_be: &|answer| config::host(answer).is_some(),
        ..Question::new("--gitlab-url", "Address of GitLab, such as https://gitlab.example.com")
    };
    let gitlab_url = questions.answer(arguments.gitlab_url.clone(), url).await?;
    let environments = environments(arguments, &mut questions).await?;
    let scoped = |flag, given| Scoped::of(flag, given, &environments);
    let (accounts, regions) = (scoped("--account", &arguments.account)?, scoped("--region", &arguments.region)?);
    let region = match regions.for_all() {
        Some(region) => region,
        None => {
            let default = aws::Session::open(None, None, None).await.ok().map(|session| session.region().to_owned());
            let question = Question { default, can_be: &file::is_region, ..Question::new("--region", "AWS region") };
            questions.answer(None, question).await?
        }
    };
    let account = match accounts.for_all() {
        Some(account) => account,
        None => {
            let default = account_here(&region).await;
            let question = Question { default, can_be: &file::is_account, ..Question::new("--account", "AWS account") };
            questions.answer(None, question).await?
        }
    };
    let mode = mode(arguments, &mut questions).await?;
    let principal = match mode {
        Mode::Own => {
            let question = Question::new("--principal", "ARN of the role or user that your manager calls AWS as");
            questions.answer(arguments.principal.clone(), question).await?
        }
        Mode::Each | Mode::Shared => String::new(),
    };
    let scope = scope(arguments, asks && mode != Mode::Own).await?;
    let (vpcs, subnets) = (scoped("--vpc", &arguments.vpc)?, scoped("--subnets", &arguments.subnets)?);
    let (roles, images) = (scoped("--deploy-role", &arguments.deploy_role)?, scoped("--image", &arguments.image)?);
    let secrets = scoped("--runner-token-secret", &arguments.runner_token_secret)?;
    let cidrs = scoped("--manager-cidr", &arguments.manager_cidr)?;
    let mut tables: Vec<Environment> = Vec::new();
    for name in &environments {
        let before = tables.last();
        let default = before.map(|before| before.vpc.clone());
        let vpc = questions.about(name, &vpcs, "VPC", default, &|answer| file::is_id(answer, "vpc")).await?;
        let default = before.filter(|before| before.vpc == vpc).map(|before| before.subnets.join(","));
        let are_ids = |answer: &str| list(answer).iter().all(|id| file::is_id(id, "subnet"));
        let subnets = list(&questions.about(name, &subnets, "Subnets, with commas,", default, &are_ids).await?);
        let elsewhere = match mode {
            Mode::Each => false,
            Mode::Shared => tables.first().is_some_and(|first| first.vpc != vpc),
            Mode::Own => true,
        };
        let manager_cidr = if elsewhere {
            let default = before.and_then(|before| before.manager_cidr.clone());
            let what = "Network that the manager comes from, such as 10.20.0.0/24, to the tasks";
            Some(questions.about(name, &cidrs, what, default, &|_| true).await?)
        } else {
            cidrs.of_environment(name)
        };
        let runner_token_secret = match mode {
            Mode::Own => {
                Some(questions.about(name, &secrets, "ARN of the secret with the runner token", None, &|_| true).await?)
            }
            Mode::Each | Mode::Shared => secrets.of_environment(name),
        };
        tables.push(Environment {
            name: name.clone(),
            account: accounts.only_for(name).filter(|own| *own != account),
            region: regions.only_for(name).filter(|own| *own != region),
            deploy_role: roles.of_environment(name),
            vpc,
            subnets,
            assign_public_ip: arguments.assign_public_ip,
            image: images.of_environment(name),
            runner_token_secret,
            manager_cidr,
        });
    }
    if !questions.missing.is_empty() {
        let why =
            if arguments.non_interactive { "--non-interactive asks nothing" } else { "there is no terminal to ask on" };
        return Err(anyhow!("{why}, and this is missing:\n  {}", questions.missing.join("\n  ")));
    }
    let manager = match (mode, tables.first()) {
        (Mode::Shared, Some(first)) => Manager::Shared { vpc: first.vpc.clone(), subnets: first.subnets.clone() },
        (Mode::Own, _) => Manager::Own { principal },
        _ => Manager::Each,
    };
    Ok(Answers { name, gitlab_url, scope, account, region, manager, environments: tables })
}

fn list(words: &str) -> Vec<String> {
    words.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

async fn scope(arguments: &Arguments, asks: bool) -> anyhow::Result<Option<RunnerScope>> {
    let group_id = match (arguments.gitlab_group, arguments.gitlab_project) {
        (Some(group_id), _) => group_id,
        (None, Some(project_id)) => return Ok(Some(RunnerScope::Project { project_id })),
        (None, None) if asks => {
            let answer =
                ask::optional("Id of the GitLab group that apply makes the runners in (none: you give the tokens)")
                    .await?;
            if answer.is_empty() {
                return Ok(None);
            }
            answer.parse().context("the id of a group is a number, which GitLab shows on the group's page")?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(RunnerScope::Group { group_id }))
}

async fn environments(arguments: &Arguments, questions: &mut Questions) -> anyhow::Result<Vec<String>> {
    let mut names = arguments.environment.clone();
    if names.is_empty() {
        let default = Some("dev,staging,production".to_owned());
        let question = Question { default, ..Question::new("--environment", "Environments, with commas") };
        names = list(&questions.answer(None, question).await?);
    }
    for (index, name) in names.iter().enumerate() {
        // They become names of tables.
        if let Some(mistake) = file::name_mistake(name) {
            return Err(anyhow!("the environment's name {name:?} {mistake}"));
        }
        if names[..index].contains(name) {
            return Err(anyhow!("the environment {name} is named twice"));
        }
    }
    Ok(names)
}

async fn mode(arguments: &Arguments, questions: &mut Questions) -> anyhow::Result<Mode> {
    if let Some(mode) = arguments.manager {
        return Ok(mode);
    }
    let text = "Who runs the managers: each (one beside each environment), shared (one for all) or own (your machine)";
    let can_be = |answer: &str| Mode::from_str(answer, true).is_ok();
    let question = Question { default: Some("each".into()), can_be: &can_be, ..Question::new("--manager", text) };
    let answer = questions.answer(None, question).await?;
    Mode::from_str(&answer, true).map_err(|_| anyhow!("{answer:?} is none of each, shared and own"))
}

/// Whose account the credentials here belong to; none where AWS does not say.
async fn account_here(region: &str) -> Option<String> {
    let session = aws::Session::open(Some(region).filter(|region| !region.is_empty()), None, None).await.ok()?;
    match tokio::time::timeout(IDENTITY, aws::inspect::identity(&session)).await {
        Ok(Ok(identity)) => return Some(identity.account),
        Ok(Err(error)) => eprintln!("AWS does not say whose account it is: {error}"),
        Err(_) => eprintln!("AWS does not say whose account it is: no answer in {} s", IDENTITY.as_secs()),
    }
    None
}
