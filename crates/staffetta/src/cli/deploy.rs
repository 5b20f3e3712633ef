//! `staffetta deploy`: the AWS side of environments.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use aws::stack::cloudformation::CloudFormation;
use aws::stack::{
    Deployment, Environment, ManagerMode, Stack, StackKind, TASK_SECURITY_GROUP, operators, roles, stacks,
};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::{FAILED, INTERRUPTED, UNUSABLE, deploy_init, doctor, logging};
use crate::deploy::apply::{Applied, Work, apply, clean_up, manager_of, states};
use crate::deploy::config_toml::config_toml;
use crate::deploy::costs::Costs;
use crate::deploy::destroy::{destroy, left, running_jobs};
use crate::deploy::file::{self, Loaded};
use crate::deploy::operate::{Failure, token};
use crate::deploy::ownership::{self, Intent};
use crate::deploy::places::Places;
use crate::deploy::preflight::{self, NotFit};
use crate::deploy::progress::{Progress, Told};
use crate::deploy::tokens::{self, Outside, Provided};
use crate::deploy::{plan, review};
use crate::registration::ask;

/// Environments from a file, made by CloudFormation
#[derive(Debug, Subcommand)]
#[command(after_help = "From an account to green jobs:
  staffetta deploy init
  staffetta deploy plan
  staffetta deploy apply
  staffetta doctor")]
pub enum Command {
    Init(Box<deploy_init::Arguments>),
    Plan(PlanArguments),
    Apply(ApplyArguments),
    Destroy(DestroyArguments),
    Template(TemplateArguments),
    Policy(PolicyArguments),
    Config(ConfigArguments),
}

#[derive(Debug, Args)]
struct Which {
    /// The deployment file
    #[arg(short, long, env = "STAFFETTA_FILE", value_name = "FILE", default_value = file::FILE)]
    file: PathBuf,
    /// Only this environment; may be given several times
    #[arg(short, long = "environment", value_name = "NAME")]
    environments: Vec<String>,
}

/// Show what apply would change, and what it costs
#[derive(Debug, Args)]
#[command(after_help = "Nothing is changed: the change sets that CloudFormation makes for it are deleted again.

--json prints one object: `stacks`, each with `stack`, `status`, `action` (create, update,
no_change, blocked), `changes`, `notes` and `missing`; and `costs` of the whole file, in US
dollars: `monthly`, `monthly_total` and `job_minutes`.

Exit codes: 0 shown, 1 the file does not fit the account, 2 it cannot be looked at, 130 Ctrl-C.

Example:
  staffetta deploy plan --environment dev")]
pub struct PlanArguments {
    #[command(flatten)]
    which: Which,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Make or change what the file asks for
#[derive(Debug, Args)]
#[command(after_help = "Stack by stack, each event as it comes. What fails is taken back by CloudFormation; the first
cause and the state of every stack are told. Run it again after Ctrl-C or a failure: it takes up
what is there. A manager starts when its image and its runner tokens are there: what is missing is
told with the commands that bring it. A manager that runs is not changed before its next version
has all that it needs.

--json prints one object for each event. The last is `end`: `changed`; `held`, the stacks that
stay as they were for want of something; `waiting`, those that are as the file says and whose
managers do not run yet; and `missing`.

Exit codes: 0 the stacks are as the file says, though managers may wait (`waiting`), 1 they are
not, 2 nothing was begun, 130 Ctrl-C (CloudFormation goes on).

Example:
  staffetta deploy apply")]
pub struct ApplyArguments {
    #[command(flatten)]
    which: Which,
    /// Print one JSON object for each event instead of lines
    #[arg(long)]
    json: bool,
}

/// Delete what apply made
#[derive(Debug, Args)]
#[command(
    after_help = "Managers go first, so that no new job starts. Caches and images go too. What is left is told; a
later apply makes all anew. It asks for the name of the deployment.

--json prints one object for each event.

Exit codes: 0 deleted, 1 refused or not all deleted, 2 nothing was begun, 130 Ctrl-C
(CloudFormation goes on).

Example:
  staffetta deploy destroy --environment dev"
)]
pub struct DestroyArguments {
    #[command(flatten)]
    which: Which,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
    /// End the jobs that run
    #[arg(long)]
    even_with_running_jobs: bool,
    /// Print one JSON object for each event instead of lines
    #[arg(long)]
    json: bool,
}

/// Print what would be applied: CloudFormation templates
#[derive(Debug, Args)]
#[command(
    after_help = "One stack: its template. Several: one JSON object, in which each has its name. AWS is not asked.

Exit codes: 0 printed, 2 the file cannot be used.

Examples:
  staffetta deploy template ci-dev | cfn-lint -
  staffetta deploy template | jq 'keys'"
)]
pub struct TemplateArguments {
    /// Only this stack
    #[arg(value_name = "STACK")]
    stack: Option<String>,
    #[command(flatten)]
    which: Which,
}

/// Print the policy of each role, and why it needs what it may do
#[derive(Debug, Args)]
#[command(after_help = "Also what the operator needs for these environments: whoever runs deploy and doctor, and each
deploy_role. AWS is not asked.

--json prints one object: `roles` and `operators`, each with its policy as IAM has it and `why` by
statement.

Exit codes: 0 printed, 2 the file cannot be used.

Example:
  staffetta deploy policy --environment production")]
pub struct PolicyArguments {
    #[command(flatten)]
    which: Which,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Print the manager's config.toml
#[derive(Debug, Args)]
#[command(after_help = "For a manager of your own (`manager = \"own\"`), or to see what the others get. The security
groups are those that `staffetta deploy apply` made. Tokens are not in it: it names the variables
that have them.

Exit codes: 0 printed, 1 an environment is not there, 2 the file cannot be used or AWS cannot be
asked.

Example:
  staffetta deploy config --environment dev > config.toml")]
pub struct ConfigArguments {
    #[command(flatten)]
    which: Which,
}

pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    logging::start_if_asked_for();
    match command {
        Command::Init(arguments) => deploy_init::run(*arguments).await,
        Command::Plan(arguments) => run_plan(arguments).await,
        Command::Apply(arguments) => run_apply(arguments).await,
        Command::Destroy(arguments) => run_destroy(arguments).await,
        Command::Template(arguments) => run_template(&arguments),
        Command::Policy(arguments) => run_policy(&arguments),
        Command::Config(arguments) => run_config(&arguments).await,
    }
}

/// What the file asks for.
struct Wanted {
    loaded: Loaded,
    stacks: Vec<Stack>,
}

fn load(which: &Which) -> anyhow::Result<Wanted> {
    if !which.file.exists() {
        let file = which.file.display();
        return Err(anyhow!("there is no {file}: `staffetta deploy init` writes one, and --file names another"));
    }
    let loaded = file::load(&which.file)?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let deployment = &loaded.deployment;
    let known: Vec<_> = deployment.environments.iter().map(|environment| environment.name.as_str()).collect();
    if let Some(unknown) = which.environments.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(anyhow!("there is no environment {unknown:?}; the file has {}", known.join(", ")));
    }
    let stacks = stacks(deployment, &|environments, group| config_toml(deployment, environments, group));
    Ok(Wanted { loaded, stacks })
}

impl Wanted {
    /// The stacks of these environments; of all without any. What all environments share is among them only if `shared`.
    fn chosen(&self, environments: &[String], shared: bool) -> Vec<Stack> {
        let is_chosen = |stack: &&Stack| match &stack.kind {
            _ if environments.is_empty() => true,
            StackKind::Environment(name) | StackKind::Manager(Some(name)) => environments.contains(name),
            StackKind::ManagerAccess => shared,
            StackKind::Manager(None) => false,
        };
        self.stacks.iter().filter(is_chosen).cloned().collect()
    }
}

fn looking_at(stacks: &[Stack]) -> ProgressBar {
    doctor::progress(&stacks.iter().map(|stack| stack.name.clone()).collect::<Vec<_>>())
}

/// Whether the file fits the account and what stands there; what does not is told, with the exit code.
async fn fits(wanted: &Wanted, chosen: &[Stack], places: &Places, which: &Which, making: bool) -> Result<(), ExitCode> {
    let spinner = looking_at(chosen);
    let (deployment, file) = (&wanted.loaded.deployment, &which.file);
    let checked = async {
        preflight::check(deployment, chosen, places, file, making).await?;
        let intent = if making { Intent::Make } else { Intent::Destroy };
        ownership::check(deployment, &wanted.stacks, chosen, places, file, intent).await
    };
    let checked = checked.await;
    spinner.finish_and_clear();
    checked.map_err(|error| {
        eprintln!("staffetta: nothing was begun.\n{error}");
        ExitCode::from(if matches!(error, NotFit::Unseen(_)) { UNUSABLE } else { FAILED })
    })
}

async fn run_plan(arguments: PlanArguments) -> anyhow::Result<ExitCode> {
    let PlanArguments { which, json } = arguments;
    let wanted = load(&which)?;
    let chosen = wanted.chosen(&which.environments, true);
    let places = Places::of(&wanted.stacks).await?;
    let Wanted { loaded: Loaded { deployment, .. }, stacks: all } = &wanted;
    if let Err(code) = fits(&wanted, &chosen, &places, &which, true).await {
        return Ok(code);
    }
    let work = Work { deployment, all, chosen: &chosen, places: &places };
    let name = token();
    let spinner = looking_at(&chosen);
    let planned = tokio::select! {
        planned = plan::plan(&work, &name) => planned,
        _ = tokio::signal::ctrl_c() => {
            unless_interrupted(plan::clean_up(&work, &name)).await;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    spinner.finish_and_clear();
    let plans = match planned {
        Ok(plans) => plans,
        Err(failure) => {
            unless_interrupted(plan::clean_up(&work, &name)).await;
            return Err(unplanned(&failure));
        }
    };
    let costs = Costs::of(deployment);
    if json {
        print(&serde_json::to_string_pretty(&json!({"stacks": plans, "costs": costs}))?);
    } else {
        print(&format!("{}{}\n\n{costs}", plan::text(&plans), plan::summary(&plans)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C, perhaps the second, ends it at once: none.
async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        // The signal is listened for before anything is said that could be answered by it.
        biased;
        _ = tokio::signal::ctrl_c() => None,
        done = work => Some(done),
    }
}

fn unplanned(failure: &Failure) -> anyhow::Error {
    anyhow!(failure.line())
}

async fn run_apply(arguments: ApplyArguments) -> anyhow::Result<ExitCode> {
    let ApplyArguments { which, json } = arguments;
    let wanted = load(&which)?;
    let chosen = wanted.chosen(&which.environments, true);
    let places = Places::of(&wanted.stacks).await?;
    if let Err(code) = fits(&wanted, &chosen, &places, &which, true).await {
        return Ok(code);
    }
    let Wanted { loaded: Loaded { deployment, .. }, stacks: all } = &wanted;
    let work = Work { deployment, all, chosen: &chosen, places: &places };
    let mut progress = Progress::new(json);
    let Some(mut applied) = apply_or_clean_up(&work, &mut progress).await else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if applied.as_ref().is_ok_and(|applied| !applied.missing.is_empty()) {
        let Some(stored) = provide_tokens(&work, &wanted.loaded, &which.file, json, &mut progress).await else {
            return Ok(interrupted(&progress, "apply"));
        };
        if stored {
            let managers: Vec<_> = chosen.iter().filter(|stack| is_manager(stack)).cloned().collect();
            let work = Work { chosen: &managers, ..work };
            let Some(again) = apply_or_clean_up(&work, &mut progress).await else {
                return Ok(ExitCode::from(INTERRUPTED));
            };
            applied = applied.and_then(|mut applied| {
                applied.missing.retain(|missing| managers.iter().all(|stack| stack.name != missing.stack));
                let again = again?;
                applied.missing.extend(again.missing);
                Ok(Applied { changed: true, held: again.held, waiting: again.waiting, ..applied })
            });
        }
    }
    match applied {
        Ok(applied) => {
            if chosen.len() < all.len() && matches!(deployment.manager, ManagerMode::Shared(_)) {
                progress
                    .note("The manager of all environments is as it was: apply without --environment changes it too.");
            }
            progress.tell(&Told::End(&applied));
            Ok(if applied.held.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
        }
        Err(failure) => {
            failed(&failure, &work, &mut progress).await;
            progress.note("Correct what is said above and run `staffetta deploy apply` again: it goes on from here.");
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// None: Ctrl-C ended it, and that is told.
async fn apply_or_clean_up(work: &Work<'_>, progress: &mut Progress) -> Option<Result<Applied, Failure>> {
    let applied = unless_interrupted(apply(work, progress)).await;
    if applied.is_none() {
        interrupted(progress, "apply");
        unless_interrupted(clean_up(work, progress)).await;
    }
    applied
}

fn is_manager(stack: &Stack) -> bool {
    matches!(stack.kind, StackKind::Manager(_))
}

/// Sees to the runner tokens of the chosen managers. True if one was stored; none if Ctrl-C ended it.
async fn provide_tokens(
    work: &Work<'_>,
    loaded: &Loaded,
    file: &Path,
    json: bool,
    progress: &mut Progress,
) -> Option<bool> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let outside = Outside { file, variable: &variable, asks: !json && ask::is_possible() };
    let mut stored = false;
    for manager in work.chosen.iter().filter_map(|stack| manager_of(work.deployment, stack)) {
        let session = work.places.session(manager.place());
        for environment in work.deployment.environments_of(manager) {
            let plan = tokio::select! {
                plan = tokens::look(session, loaded, environment, &outside) => plan,
                _ = tokio::signal::ctrl_c() => return None,
            };
            let mut provided =
                pin!(async { tokens::provide(plan?, session, work.deployment, environment, file).await });
            let provided = tokio::select! {
                provided = &mut provided => provided,
                _ = tokio::signal::ctrl_c() => {
                    // A runner that GitLab makes now would have a token that nobody knows.
                    eprintln!("Waiting for the answer of GitLab or AWS; Ctrl-C again waits no longer.");
                    tokio::select! { _ = provided => {}, _ = tokio::signal::ctrl_c() => {} }
                    return None;
                }
            };
            let name = &environment.name;
            match provided {
                Ok(Provided::There) => {}
                Ok(Provided::Stored(from)) => {
                    stored = true;
                    progress.note(&format!("The token of the runner {name} is stored: from {from}."));
                }
                Ok(Provided::Missing(why)) => {
                    progress.note(&format!("There is no token for the runner {name}: {why}."))
                }
                Err(error) => progress.note(&format!("There is no token for the runner {name}: {error:#}.")),
            }
        }
    }
    Some(stored)
}

async fn failed(failure: &Failure, work: &Work<'_>, progress: &mut Progress) {
    progress.tell(&failure.told());
    let spinner = looking_at(work.all);
    let states = unless_interrupted(states(work.all, work.places)).await;
    spinner.finish_and_clear();
    let Some(states) = states else { return };
    progress.note("What there is now:");
    for (stack, status) in states {
        let (account, region) = (&stack.place.account, &stack.place.region);
        progress.tell(&Told::State { stack: &stack.name, account, region, status: status.as_deref() });
    }
}

/// CloudFormation does not stop when nobody looks.
fn interrupted(progress: &Progress, command: &str) -> ExitCode {
    match progress.working() {
        Some((stack, region)) => eprintln!(
            "Interrupted. CloudFormation goes on with {stack}: `aws cloudformation describe-stack-events --stack-name {stack} --region \
             {region}` shows how. `staffetta deploy {command}` takes it up again."
        ),
        None => eprintln!("Interrupted. `staffetta deploy {command}` goes on from here."),
    }
    ExitCode::from(INTERRUPTED)
}

async fn run_destroy(arguments: DestroyArguments) -> anyhow::Result<ExitCode> {
    let DestroyArguments { which, yes, even_with_running_jobs, json } = arguments;
    let wanted = load(&which)?;
    let chosen = wanted.chosen(&which.environments, false);
    let places = Places::of(&wanted.stacks).await?;
    if let Err(code) = fits(&wanted, &chosen, &places, &which, false).await {
        return Ok(code);
    }
    let Wanted { loaded: Loaded { deployment, .. }, stacks: all } = &wanted;
    let work = Work { deployment, all, chosen: &chosen, places: &places };
    let spinner = looking_at(&chosen);
    let jobs = running_jobs(&work).await;
    spinner.finish_and_clear();
    let jobs = jobs.map_err(|failure| unplanned(&failure))?;
    if !jobs.is_empty() && !even_with_running_jobs {
        eprintln!("staffetta: jobs run, and nothing was deleted:\n  {}", jobs.join("\n  "));
        eprintln!("Wait for their end (pause the runners in GitLab), or end them with --even-with-running-jobs.");
        return Ok(ExitCode::from(FAILED));
    }
    if !yes && !is_meant(deployment, &chosen).await? {
        eprintln!("Nothing was deleted.");
        return Ok(ExitCode::from(FAILED));
    }
    let mut progress = Progress::new(json);
    let Some(destroyed) = unless_interrupted(destroy(&work, even_with_running_jobs, &mut progress)).await else {
        return Ok(interrupted(&progress, "destroy"));
    };
    match destroyed {
        Ok(()) => {
            progress.tell(&Told::Left { what: &left(&work) });
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            failed(&failure, &work, &mut progress).await;
            Ok(ExitCode::from(FAILED))
        }
    }
}

async fn is_meant(deployment: &Deployment, chosen: &[Stack]) -> anyhow::Result<bool> {
    if !ask::is_possible() {
        return Err(anyhow!("there is no terminal to ask on: --yes deletes without asking"));
    }
    eprintln!("These stacks are deleted, with their caches and images:");
    for Stack { name, place, .. } in chosen {
        eprintln!("  {name} ({}, {})", place.account, place.region);
    }
    let question = format!("Type the name of the deployment ({}) to delete them", deployment.name);
    Ok(ask::optional(&question).await? == deployment.name)
}

fn run_template(arguments: &TemplateArguments) -> anyhow::Result<ExitCode> {
    let wanted = load(&arguments.which)?;
    let chosen = wanted.chosen(&arguments.which.environments, true);
    let template = match &arguments.stack {
        Some(name) => {
            let names: Vec<_> = chosen.iter().map(|stack| stack.name.as_str()).collect();
            let stack = chosen.iter().find(|stack| stack.name == *name);
            &stack.with_context(|| format!("there is no stack {name:?}; the file has {}", names.join(", ")))?.template
        }
        None => &json!(chosen.iter().map(|stack| (&stack.name, &stack.template)).collect::<BTreeMap<_, _>>()),
    };
    print(&serde_json::to_string_pretty(template)?);
    Ok(ExitCode::SUCCESS)
}

fn run_policy(arguments: &PolicyArguments) -> anyhow::Result<ExitCode> {
    let PolicyArguments { which, json } = arguments;
    let wanted = load(which)?;
    let is_chosen = |name: &Option<String>| {
        which.environments.is_empty() || name.as_ref().is_some_and(|name| which.environments.contains(name))
    };
    let deployment = &wanted.loaded.deployment;
    let roles: Vec<_> = roles(deployment).into_iter().filter(|role| is_chosen(&role.environment)).collect();
    let mut chosen = deployment.clone();
    chosen.environments.retain(|environment| is_chosen(&Some(environment.name.clone())));
    let operators = operators(&chosen);
    if *json {
        let roles: Vec<_> = roles.iter().map(review::json).collect();
        let operators: Vec<_> = operators.iter().map(review::operator_json).collect();
        print(&serde_json::to_string_pretty(&json!({"roles": roles, "operators": operators}))?);
    } else {
        let texts = roles.iter().map(review::text).chain(operators.iter().map(review::operator_text));
        print(texts.collect::<Vec<_>>().join("\n").trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_config(arguments: &ConfigArguments) -> anyhow::Result<ExitCode> {
    let which = &arguments.which;
    let wanted = load(which)?;
    let Wanted { loaded: Loaded { deployment, .. }, stacks } = &wanted;
    let is_chosen =
        |environment: &&Environment| which.environments.is_empty() || which.environments.contains(&environment.name);
    let environments: Vec<_> = deployment.environments.iter().filter(is_chosen).collect();
    if matches!(deployment.manager, ManagerMode::Each) && environments.len() > 1 {
        return Err(anyhow!("each environment has a manager with a config.toml of its own: name one by --environment"));
    }
    let places = Places::of(stacks).await?;
    let mut groups = BTreeMap::new();
    for environment in &environments {
        let name = deployment.environment_name(environment);
        let record = CloudFormation::new(places.session(&environment.place)).describe(&name).await;
        let record = record.with_context(|| format!("the stack {name} cannot be looked at"))?;
        let Some(group) = record.and_then(|record| record.outputs.get(TASK_SECURITY_GROUP).cloned()) else {
            eprintln!("staffetta: {name} is not there: `staffetta deploy apply` makes it.");
            return Ok(ExitCode::from(FAILED));
        };
        groups.insert(&environment.name, group);
    }
    let group = |environment: &Environment| groups.get(&environment.name).cloned().unwrap_or_default();
    print(config_toml(deployment, &environments, &group).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Whoever reads it may have read enough (`| head`).
fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
