//! The conformance suite: small pipelines, one behaviour each, written as data in cases/. README.md tells the format.
//!
//! `cargo test -p testkit --test conformance -- cache` runs those with `cache` in `AREA::NAME`. With `--list` they are only named,
//! with `--quiet` only failures and the table are shown. Words that no case has pass, since `cargo test NAME` gives them to all
//! test programs; with `--must-match`, as `make conformance` has it, they do not.

mod case;
mod checklist;
mod expect;
mod run;
mod store;
mod text;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use case::{Area, Case, Need, Store};
use run::{External, Runner};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases");
const CHECKLIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/checklist.yaml");

/// What `cargo test` may say after `--`.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    exact: bool,
    list: bool,
    quiet: bool,
    must_match: bool,
    threads: Option<usize>,
}

impl Arguments {
    fn mean(&self, name: &str) -> bool {
        let means = |filter: &String| if self.exact { filter == name } else { name.contains(filter) };
        self.filters.is_empty() || self.filters.iter().any(means)
    }
}

enum Verdict {
    Passed,
    Failed(Vec<String>),
    Skipped(String),
}

/// One line of the table.
#[derive(Default)]
struct Row {
    passed: usize,
    failed: usize,
    /// Reasons, and how many cases have each.
    skipped: BTreeMap<String, usize>,
    spent: Duration,
}

fn main() -> ExitCode {
    text::check();
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(message) => return refuse(&message),
    };
    let mut areas = match case::load(Path::new(CASES)) {
        Ok(areas) => areas,
        Err(message) => return refuse(&message),
    };
    let missing = checklist::check(Path::new(CHECKLIST), &areas);
    for area in &mut areas {
        area.cases.retain(|case| arguments.mean(&format!("{}::{}", area.name, case.name)));
    }
    if arguments.must_match && areas.iter().all(|area| area.cases.is_empty()) {
        return refuse(&format!("no case has {} in its AREA::NAME; --list tells all", arguments.filters.join(" or ")));
    }
    if arguments.list {
        for area in &areas {
            area.cases.iter().for_each(|case| println!("{}::{}: test", area.name, case.name));
        }
        return ExitCode::SUCCESS;
    }
    let runner = match runner() {
        Ok(runner) => runner,
        Err(message) => return refuse(&message),
    };
    // A panic of a case is told with the case.
    std::panic::set_hook(Box::new(|_| {}));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let failed = runtime.block_on(run_all(areas, &arguments, runner));
    missing.iter().for_each(|line| println!("checklist: {line}"));
    ExitCode::from(u8::from(failed || !missing.is_empty()))
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("conformance: {message}");
    ExitCode::from(2)
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => arguments.list = true,
            "--exact" => arguments.exact = true,
            "--quiet" | "-q" => arguments.quiet = true,
            "--must-match" => arguments.must_match = true,
            "--test-threads" => {
                let count = words.next().and_then(|word| word.parse().ok()).filter(|count| *count > 0);
                arguments.threads = Some(count.ok_or("--test-threads wants a number")?);
            }
            // Words of other test programs that change nothing here.
            "--nocapture" | "--no-capture" | "--show-output" => {}
            word if word.starts_with('-') => return Err(format!("{word} is not known")),
            word => arguments.filters.push(word.to_owned()),
        }
    }
    Ok(arguments)
}

/// From the environment: README.md, "Another runner".
fn runner() -> Result<Runner, String> {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match read("CONFORMANCE_RUNNER").as_deref() {
        None | Some("ours") => return Ok(Runner::Ours),
        Some("external") => {}
        Some(other) => return Err(format!("CONFORMANCE_RUNNER is `ours` or `external`, not {other}")),
    }
    let listen = read("CONFORMANCE_LISTEN").unwrap_or_else(|| "127.0.0.1:8929".into());
    let listen: SocketAddr = listen.parse().map_err(|_| format!("CONFORMANCE_LISTEN is ADDRESS:PORT, not {listen}"))?;
    let token = read("CONFORMANCE_TOKEN").unwrap_or_else(|| "glrt-t1_conformance000000000".into());
    let has_store = read("CONFORMANCE_STORE").is_some();
    let store = has_store.then(|| testkit::Moto::shared().address());
    let told = serde_json::json!({ "url": format!("http://{listen}"), "token": token, "store": store });
    println!("{told}");
    let has_containers = read("CONFORMANCE_CONTAINERS").is_some();
    let version = read("CONFORMANCE_VERSION");
    Ok(Runner::External(External { listen, token, version, has_store, has_containers }))
}

/// Whether a case failed.
async fn run_all(areas: Vec<Area>, arguments: &Arguments, runner: Runner) -> bool {
    let start = Instant::now();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // A case mostly waits: for its task, and for the manager to ask again. Other runners keep files by project, and
    // share one address: one by one.
    let at_once = match runner {
        Runner::Ours => arguments.threads.unwrap_or(3 * cores),
        Runner::External(_) => 1,
    };
    let permits = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    for area in areas {
        for case in area.cases {
            let name = format!("{}::{}", area.name, case.name);
            let (area, runner, permits) = (area.name.clone(), runner.clone(), permits.clone());
            running.spawn(async move {
                let _permit = permits.acquire_owned().await.expect("the semaphore is never closed");
                let began = Instant::now();
                let verdict = verdict(&area, case, runner).await;
                (area, name, verdict, began.elapsed())
            });
        }
    }
    let mut table: BTreeMap<String, Row> = BTreeMap::new();
    let mut failures = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (area, name, verdict, spent) = ended.expect("a case's panic is its verdict");
        let row = table.entry(area).or_default();
        row.spent += spent;
        let word = match verdict {
            Verdict::Passed => {
                row.passed += 1;
                "ok".to_owned()
            }
            Verdict::Skipped(reason) => {
                let word = format!("skipped: {reason}");
                *row.skipped.entry(reason).or_default() += 1;
                word
            }
            Verdict::Failed(wrong) => {
                row.failed += 1;
                failures.push((name.clone(), wrong));
                "FAILED".to_owned()
            }
        };
        if !arguments.quiet {
            println!("test {name} ... {word} ({:.1} s)", spent.as_secs_f64());
        }
    }
    for (name, wrong) in &failures {
        println!("\n---- {name} ----\n{}", wrong.join("\n"));
    }
    show(&table, start.elapsed());
    !failures.is_empty()
}

async fn verdict(area: &str, case: Case, runner: Runner) -> Verdict {
    if let Some(reason) = skipped(&case, &runner) {
        return Verdict::Skipped(reason);
    }
    let area = area.to_owned();
    let ran = tokio::spawn(async move { run::run(&area, &case, &runner).await }).await;
    match ran {
        Ok(wrong) if wrong.is_empty() => Verdict::Passed,
        Ok(wrong) => Verdict::Failed(wrong),
        Err(error) => Verdict::Failed(vec![panic_message(error)]),
    }
}

fn panic_message(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "the case was given up".into() };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Why a case cannot be run here.
fn skipped(case: &Case, runner: &Runner) -> Option<String> {
    let (is_external, has_containers) = match runner {
        Runner::Ours => (false, true),
        Runner::External(external) => (true, external.has_containers),
    };
    for need in &case.needs {
        match need {
            Need::Ours if is_external => return Some("only this project's runner has it".into()),
            Need::Container if !has_containers => return Some("needs a container for each job".into()),
            Need::Root if !nix::unistd::geteuid().is_root() => return Some("needs root".into()),
            Need::GitLfs if !is_there("git-lfs") => return Some("needs git-lfs".into()),
            _ => {}
        }
    }
    let Runner::External(external) = runner else { return None };
    if external.has_store && case.needs.contains(&Need::NoStore) {
        return Some("needs a runner without a store".into());
    }
    if case.differs.is_some() {
        return Some("differs on purpose".into());
    }
    let can_have = |store: &Store| external.has_store && store.config.is_empty();
    if !case.config.is_empty() || !case.store.as_ref().is_none_or(can_have) {
        return Some("needs a configuration of its own".into());
    }
    let (since, version) = (case.since.as_deref()?, external.version.as_deref()?);
    (parts(version) < parts(since)).then(|| format!("since {since}"))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn parts(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn show(table: &BTreeMap<String, Row>, spent: Duration) {
    println!("\n{:<12} {:>6} {:>7} {:>7} {:>8} {:>8}", "area", "cases", "passed", "failed", "skipped", "seconds");
    let line = |name: &str, row: &Row| {
        let skipped: usize = row.skipped.values().sum();
        let cases = row.passed + row.failed + skipped;
        let seconds = row.spent.as_secs_f64();
        let reasons: Vec<String> = row.skipped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let line = format!("{name:<12} {cases:>6} {:>7} {:>7} {skipped:>8} {seconds:>8.1}", row.passed, row.failed);
        println!("{line}  {}", reasons.join("; "));
    };
    let mut total = Row { spent, ..Row::default() };
    for (area, row) in table {
        line(area, row);
        total.passed += row.passed;
        total.failed += row.failed;
        *total.skipped.entry(String::new()).or_default() += row.skipped.values().sum::<usize>();
    }
    let skipped: usize = total.skipped.values().sum();
    total.skipped.clear();
    if skipped > 0 {
        total.skipped.insert("in all".into(), skipped);
    }
    line("all", &total);
}
