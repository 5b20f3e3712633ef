//! GitLab, ECS and the manager on this machine: the production code, pointed at the embedded servers.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use aws::fargate::Credentials;
use embedded::{fargate, gitlab};
use job::ids::SystemId;
use ssh::client::AgentBinaries;

use crate::config;
use crate::manager::Manager;

/// More than any laptop can run at once; GitLab's queue is no use when all of it is here.
const CONCURRENT: usize = 50;

/// The tags of a job are the environment that it runs in. Jobs without tags run here.
const UNTAGGED: &str = "local";

pub struct Servers {
    pub gitlab: gitlab::Server,
    fargate: fargate::Server,
    manager: Manager,
    /// Holds the manager's config.toml; removed when dropped.
    _folder: tempfile::TempDir,
}

/// The name of the environment of a job with these tags. A comma is in no tag, so two sets of tags never share a name.
pub fn environment(tags: &[String]) -> String {
    if tags.is_empty() { UNTAGGED.to_owned() } else { tags.join(",") }
}

/// A cluster for each set of tags, in their order: named like it as far as ECS's letters go, and no two alike.
fn clusters(tags: &BTreeSet<Vec<String>>) -> Vec<String> {
    let mut clusters: Vec<String> = Vec::new();
    for tags in tags {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let mut name: String = environment(tags).chars().map(allowed).collect();
        while clusters.contains(&name) {
            name.push_str("-2");
        }
        clusters.push(name);
    }
    clusters
}

/// As a string of TOML, whose escapes are not Rust's.
fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl Servers {
    /// Starts everything, with one runner, and one cluster, for each set of tags.
    pub async fn start(tags: &BTreeSet<Vec<String>>, delays: fargate::Delays) -> anyhow::Result<Self> {
        let agent = agent()?;
        let gitlab =
            gitlab::start(gitlab::Config { trace_interval: Duration::from_secs(1), ..gitlab::Config::default() })
                .await
                .context("cannot start the embedded GitLab")?;
        let clusters = clusters(tags);
        let fargate =
            fargate::start(fargate::Config { clusters: clusters.clone(), delays, ..fargate::Config::new(&agent) })
                .await
                .context("cannot start the embedded Fargate")?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let file = folder.path().join("config.toml");
        write_config(&file, tags, &clusters, &gitlab, &fargate)?;
        let mut config = config::load(&file)?.config;
        for runner in &mut config.runners {
            runner.fargate.credentials = Credentials::MadeUp;
        }
        let manager =
            Manager::start(config, SystemId::new("s_0000000local"), AgentBinaries::beside_this_program()?).await?;
        Ok(Self { gitlab, fargate, manager, _folder: folder })
    }

    /// How the tasks are kept apart, for people.
    pub fn engine(&self) -> &str {
        self.fargate.engine()
    }

    /// Ends everything now, whatever the jobs do: no process, port or file is left.
    pub async fn abandon(self) {
        self.fargate.shutdown().await;
        self.gitlab.shutdown().await;
    }

    /// Ends everything once the manager has seen the ends of its jobs.
    pub async fn end(self) {
        // Twice is "at once": what still runs was cancelled and is stopped, while both servers can still be told.
        self.manager.terminate();
        self.manager.terminate();
        self.manager.ended().await;
        self.gitlab.shutdown().await;
        self.fargate.shutdown().await;
    }
}

/// The agent lies beside this program, as in the images.
fn agent() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("this program does not know its own path")?;
    let agent = program.with_file_name("staffetta-agent");
    anyhow::ensure!(
        agent.is_file(),
        "the agent is missing: {} should lie beside {}; build it with `cargo build --bins`",
        agent.display(),
        program.display()
    );
    Ok(agent)
}

fn write_config(
    file: &Path,
    tags: &BTreeSet<Vec<String>>,
    clusters: &[String],
    gitlab: &gitlab::Server,
    fargate: &fargate::Server,
) -> anyhow::Result<()> {
    let mut text = format!("concurrent = {CONCURRENT}\ncheck_interval = 1\nshutdown_timeout = 5\n");
    for (tags, cluster) in tags.iter().zip(clusters) {
        let name = environment(tags);
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let token = gitlab.register_runner(&name, &tags);
        write!(
            text,
            r#"
[[runners]]
name = {name}
url = {url}
token = {token}
executor = "fargate"
[runners.fargate]
cluster = {cluster}
region = "us-east-1"
subnets = ["subnet-local"]
security_groups = ["sg-local"]
task_definition = "staffetta-agent"
endpoint_url = {endpoint}
ssh_port = {port}
"#,
            name = toml_text(&name),
            url = toml_text(gitlab.url()),
            token = toml_text(&token),
            cluster = toml_text(cluster),
            endpoint = toml_text(fargate.url()),
            port = fargate.ssh_port(),
        )?;
    }
    // The folder is readable by its owner only.
    std::fs::write(file, text).context("cannot write the manager's configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sets_of_tags_share_a_cluster() {
        let sets: [&[&str]; 4] = [&["a", "b"], &["a-b"], &["a b"], &[]];
        let sets = sets.iter().map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect()).collect();
        let names = clusters(&sets);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 4, "{names:?}");
        assert!(names.contains(&"local".to_owned()), "{names:?}");
    }

    #[test]
    fn a_tag_with_a_control_character_is_still_toml() {
        for text in ["plain", "a\u{8}\"b\\\u{7f}\n", "ü"] {
            let read: toml::Table = toml::from_str(&format!("x = {}", toml_text(text))).expect("TOML");
            assert_eq!(read["x"].as_str(), Some(text));
        }
    }
}
