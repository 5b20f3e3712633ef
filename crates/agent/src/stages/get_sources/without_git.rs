//! The sources for an image without git: the agent fetches and checks out by itself.

use std::fs;

use gitlab::GitRemote;
use job::settings::{GitStrategy, Submodules};
use job::trace::line;

use super::remote::Remote;
use super::{git_files, leftovers, script};
use crate::git::{self, GitError, Sources};
use crate::run::Run;
use crate::stages::Failure;
use crate::stop::Limits;

pub async fn get(run: &Run, remote: &Remote, limits: Limits) -> Result<(), Failure> {
    run.unless_stopped(limits, fetch_and_checkout(run, remote, limits)).await?
}

async fn fetch_and_checkout(run: &Run, remote: &Remote, limits: Limits) -> Result<(), Failure> {
    let (git_info, settings) = (&run.payload.git_info, &run.settings);
    if settings.submodules != Submodules::None {
        return Err(run.helper_failed(
            "this image has no git, which submodules need: add the package git to the image, or set \
             GIT_SUBMODULE_STRATEGY to none",
        ));
    }
    if remote.host().is_none() {
        let message = "this image has no git, and without it only http and https addresses can be fetched from: add \
                       the packages git and openssh-client to the image";
        return Err(run.helper_failed(message));
    }
    let not_prepared = |error| Failure::system(format!("cannot prepare the project directory: {error}"));
    if settings.strategy == GitStrategy::Clone || cleans_all(&settings.clean_flags) {
        let project = run.workspace.project.clone();
        run.blocking(limits, move |_| leftovers::remove_tree(&project)).await?.map_err(not_prepared)?;
    } else if run.workspace.project.is_dir() {
        run.say(&line::warning(
            "GIT_CLEAN_FLAGS needs git, which this image does not have: files of earlier jobs stay",
        ));
    }
    fs::create_dir_all(&run.workspace.project).map_err(not_prepared)?;

    run.say(&line::info(&script::fetching(run)));
    run.say("This image has no git: the agent gets the sources by itself\n");
    let template = fs::read_to_string(git_files::template(run).join("config")).map_err(super::not_written)?;
    let sources = Sources {
        project: run.workspace.project.clone(),
        settings: format!(
            "[remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n{template}",
            git_files::value(&remote.url)
        ),
        refspecs: git_info.refspecs.clone(),
        depth: git_info.depth,
        object_format: git::object_format(git_info),
    };
    let has_flag = |flag| run.variables.flag(flag);
    let remote = GitRemote {
        url: remote.url.clone(),
        login: remote.login.clone(),
        hosts: remote.hosts.clone(),
        correlation_id: run.gitlab.correlation_id.clone().filter(|_| has_flag("FF_USE_GITALY_CORRELATION_ID")),
    };
    let failed = |error: GitError| run.helper_failed(&error.to_string());
    git::fetch(&run.client, remote, &sources).await.map_err(failed)?;
    run.say(&line::info("Created fresh repository."));
    if !settings.checkout {
        run.say(&line::info("Skipping Git checkout"));
    } else {
        run.say(&line::info(&script::checking_out(run)));
        let checked_out = git::checkout(&sources, &git_info.sha).await.map_err(failed)?;
        if checked_out.has_lfs && !settings.lfs_skip_smudge {
            return Err(run.helper_failed(
                "files of this repository are in Git LFS, and this image has no git: add the packages git and git-lfs \
                 to the image, or set GIT_LFS_SKIP_SMUDGE to true",
            ));
        }
    }
    run.say(&line::info("Skipping Git submodules setup"));
    Ok(())
}

/// Whether these flags of `git clean` leave nothing but what is in the commit. Any other flags need git.
fn cleans_all(flags: &[String]) -> bool {
    let mut letters = String::new();
    for flag in flags {
        match flag.strip_prefix('-').filter(|short| short.chars().all(|c| "fdxq".contains(c))) {
            Some(short) => letters.push_str(short),
            None => return false,
        }
    }
    "fdx".chars().all(|needed| letters.contains(needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flags_that_spare_nothing_clean_all() {
        let cleans_all = |flags: &str| cleans_all(&flags.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for flags in ["-ffdx", "-ffdx -q", "-f -d -x"] {
            assert!(cleans_all(flags), "{flags}");
        }
        for flags in ["", "-ffd", "-ffdX", "-ffdx -e cache", "-ffdxe cache", "-ffdx -- build", "-ndx"] {
            assert!(!cleans_all(flags), "{flags}");
        }
    }
}
