//! Reads `staffetta.toml`: all mistakes at once, each with its line.

mod environment;
mod place;
mod rules;
mod sizes;
#[cfg(test)]
pub mod tests;

use std::path::Path;

use aws::stack::{Deployment, ManagerMode, ManagerService};
use gitlab::RunnerScope;

use crate::config::read::{in_order, parse, read_text};
use crate::config::section::{Report, STAFFETTA_TOML, Section};
use crate::config::{self, Mistakes, Remark};
pub use environment::name_mistake;
use environment::{RETENTION_DAYS, architecture, environment, image, retention, tags};
use place::{Defaults, defaults, iam_arn, place};
pub use place::{is_account, is_id, is_region};
pub use sizes::is_fargate_size;
use sizes::size;

/// Where commands look if no file is named.
pub const FILE: &str = "staffetta.toml";

/// A file that can be used.
#[derive(Debug)]
pub struct Loaded {
    pub deployment: Deployment,
    /// Where `apply` makes the runners whose tokens nobody has given; none makes no runners.
    pub runner_scope: Option<RunnerScope>,
    /// What is unwise in the file.
    pub warnings: Vec<Remark>,
}

pub fn load(file: &Path) -> Result<Loaded, Mistakes> {
    read(file, &read_text(file)?)
}

/// The pure part.
pub fn read(file: &Path, text: &str) -> Result<Loaded, Mistakes> {
    let mut report = Report::new(file, text, &STAFFETTA_TOML);
    let read = read_into(&mut report, text);
    let Report { mistakes, warnings, .. } = report;
    match read {
        Some((deployment, runner_scope)) if mistakes.is_empty() => {
            Ok(Loaded { deployment, runner_scope, warnings: in_order(file, warnings) })
        }
        _ => Err(Mistakes(in_order(file, mistakes))),
    }
}

/// Answers nothing when the text is not TOML; what it answers beside reported mistakes must not be used.
fn read_into<'t>(report: &mut Report<'t>, text: &'t str) -> Option<(Deployment, Option<RunnerScope>)> {
    parse(report, text).map(|table| deployment(Section::root(report, &table)))
}

fn deployment(mut section: Section) -> (Deployment, Option<RunnerScope>) {
    let name = section.word("name");
    if name.is_empty() {
        section.missing("name", "everything that is made begins with it, such as `name = \"ci\"`");
    } else if let Some(mistake) = name_mistake(&name) {
        section.wrong("name", &mistake);
    }
    let gitlab_url = gitlab_url(&mut section);
    let defaults = defaults(&mut section);
    let mode = section.one_of("manager", MODES).unwrap_or(Mode::Each);
    let runner_scope = runner_scope(&mut section, mode);
    let principal = principal(&mut section, mode);
    let tags = tags(&mut section);
    let (service, shared_place) = manager_service(&mut section, mode, &defaults);
    let read = section.named_sections("environments", |name, table| {
        let at = table.at;
        (environment(name, table, &defaults), at)
    });
    if read.is_empty() {
        section.missing("environments", "add a table for each environment, such as [environments.dev]");
    }
    let (environments, lines): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    let manager = match (mode, shared_place) {
        (Mode::Shared, Some(place)) => ManagerMode::Shared(place),
        (Mode::Own, _) => ManagerMode::Own { principal },
        _ => ManagerMode::Each,
    };
    let deployment = Deployment { name, gitlab_url, manager, service, environments, tags };
    rules::check(&mut section, &deployment, &lines);
    section.finish(&[]);
    (deployment, runner_scope)
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Each,
    Shared,
    Own,
}

const MODES: &[(&str, Mode)] = &[("each", Mode::Each), ("shared", Mode::Shared), ("own", Mode::Own)];

fn gitlab_url(section: &mut Section) -> String {
    let url = section.word("gitlab_url");
    if url.is_empty() {
        section.missing("gitlab_url", "name the GitLab server, such as `gitlab_url = \"https://gitlab.example.com\"`");
    } else if config::host(&url).is_none() || url.contains(['$', '@']) {
        section.wrong("gitlab_url", "must begin with http:// or https:// and name a host, without a user or variables");
    }
    url
}

fn runner_scope(section: &mut Section, mode: Mode) -> Option<RunnerScope> {
    let group = section.at_least_one("gitlab_group");
    let project = section.at_least_one("gitlab_project");
    if group.is_some() && project.is_some() {
        section.wrong("gitlab_project", "and `gitlab_group` are both given: runners belong to one of them");
    }
    for key in ["gitlab_group", "gitlab_project"] {
        if mode == Mode::Own && section.contains(key) {
            section.wrong(key, "is for runners that `apply` makes, but `manager` is \"own\": leave it out");
        }
    }
    let of_group = group.map(|group_id| RunnerScope::Group { group_id });
    of_group.or(project.map(|project_id| RunnerScope::Project { project_id }))
}

/// Who may take the manager roles, where the managers run elsewhere.
fn principal(section: &mut Section, mode: Mode) -> String {
    let principal = section.word("principal");
    let parts: Vec<_> = principal.splitn(6, ':').collect();
    let is_arn = matches!(parts[..], ["arn", _, "iam", "", account, resource]
        if account.len() == 12 && (resource.starts_with("role/") || resource.starts_with("user/")));
    match mode {
        Mode::Own if principal.is_empty() => {
            section.missing("principal", "name the role or user that your manager calls AWS as, by its ARN");
        }
        Mode::Own if !is_arn => {
            section.wrong(
                "principal",
                "must be the ARN of a role or user, such as \"arn:aws:iam::123456789012:role/manager\"",
            );
        }
        Mode::Each | Mode::Shared if !principal.is_empty() => {
            section.wrong("principal", "is for `manager = \"own\"`: other managers get roles of their own");
        }
        _ => {}
    }
    principal
}

/// Keys for a shared manager: where it runs, and what bounds its roles.
const SHARED_ONLY: [&str; 8] = [
    "account",
    "region",
    "vpc",
    "subnets",
    "assign_public_ip",
    "deploy_role",
    "deploy_external_id",
    "permissions_boundary",
];

/// `[manager_service]`; the place only where one manager serves all.
fn manager_service(
    section: &mut Section,
    mode: Mode,
    defaults: &Defaults,
) -> (ManagerService, Option<aws::stack::Place>) {
    let default = ManagerService {
        image: None,
        cpu: 256,
        memory: 512,
        architecture: aws::stack::Architecture::X86_64,
        concurrent: 10,
        log_retention_days: RETENTION_DAYS,
        permissions_boundary: None,
    };
    let Some(mut table) = section.section("manager_service") else {
        if mode == Mode::Shared {
            section.missing(
                "manager_service",
                "a shared manager needs a [manager_service] table that names its vpc and subnets",
            );
        }
        return (default, None);
    };
    if mode == Mode::Own {
        let message = "`manager_service` is for managers that are made here, but `manager` is \"own\": leave it out";
        table.mistake(table.at, message);
    }
    let shared_place = if mode == Mode::Shared {
        Some(place(&mut table, defaults))
    } else {
        for key in SHARED_ONLY {
            table.skip(key);
            if table.contains(key) {
                table.wrong(key, "is for `manager = \"shared\"`: an environment's own manager runs beside it");
            }
        }
        None
    };
    let (cpu, memory) = size(&mut table, (default.cpu, default.memory));
    let service = ManagerService {
        image: image(&mut table),
        cpu,
        memory,
        architecture: architecture(&mut table),
        concurrent: table.at_least_one("concurrent").unwrap_or(default.concurrent),
        log_retention_days: retention(&mut table),
        permissions_boundary: shared_place
            .as_ref()
            .and_then(|place| iam_arn(&mut table, "permissions_boundary", "policy", place)),
    };
    table.finish(&[]);
    (service, shared_place)
}
