//! The keys of caches as the server makes them: of files, and with what it puts behind every key (protocol 3.10).

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ci::{self, CacheKey, KeyFiles};
use super::config::Config;
use super::git::{self, GitError};

/// Puts texts in the place of the keys that are made of files.
pub(super) async fn settle(pipeline: &mut ci::Pipeline, repo: &Path, commit: &str) -> Result<(), GitError> {
    for job in &mut pipeline.jobs {
        for (index, cache) in job.caches.iter_mut().enumerate() {
            let CacheKey::Files { by, files, prefix } = &cache.key else { continue };
            let prefix = prefix.clone().unwrap_or_else(|| usual_prefix(index, files));
            let digest = digest(repo, commit, *by, files).await?;
            cache.key = CacheKey::Text(format!("{prefix}-{digest}"));
        }
    }
    Ok(())
}

/// The place of the cache in the job, and the files' names without what follows the first dot [S].
fn usual_prefix(index: usize, files: &[String]) -> String {
    let names: Vec<&str> = files.iter().filter_map(|file| file.split('.').next()).collect();
    format!("{index}_{}", names.join("_"))
}

/// GitLab takes SHA-1; any other sum serves as well, since nobody computes it again.
async fn digest(repo: &Path, commit: &str, by: KeyFiles, files: &[String]) -> Result<String, GitError> {
    let mut ids = Vec::new();
    for file in files {
        let id = match by {
            KeyFiles::Content => git::git(repo, &["ls-tree", "--format=%(objectname)", commit, "--", file]).await?,
            KeyFiles::Commits => git::git(repo, &["log", "-1", "--format=%H", commit, "--", file]).await?,
        };
        ids.push(id.trim().to_owned());
    }
    ids.retain(|id| !id.is_empty());
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        return Ok("default".into());
    }
    let sum = Sha256::digest(ids.join("-"));
    Ok(sum.iter().take(20).map(|byte| format!("{byte:02x}")).collect())
}

/// The payload's entry. `protected`: the pipeline runs for a protected ref.
pub(super) fn entry(cache: &ci::Cache, config: &Config, protected: bool) -> Value {
    let text = match &cache.key {
        CacheKey::Text(text) => text,
        // `settle` left none.
        CacheKey::Files { .. } => "default",
    };
    let mut suffix = config.cache_index.map(|index| format!("-{index}")).unwrap_or_default();
    if config.separated_caches {
        suffix += if protected && !cache.unprotect { "-protected" } else { "-non_protected" };
    }
    let when = match cache.when {
        ci::SaveWhen::OnSuccess => "on_success",
        ci::SaveWhen::OnFailure => "on_failure",
        ci::SaveWhen::Always => "always",
    };
    let fallback_keys: Vec<String> = cache.fallback_keys.iter().map(|key| format!("{key}{suffix}")).collect();
    json!({
        "key": format!("{text}{suffix}"), "untracked": cache.untracked, "policy": cache.policy, "paths": cache.paths,
        "when": when, "fallback_keys": fallback_keys,
    })
}
