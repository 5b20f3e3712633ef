//! Where a job's caches are kept: in the task, and in the runner's store if it has one (protocol 6.2, 6.3).

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gitlab::Proxies;
use job::cache::{Key, Named, NoKey, Place};
use job::hand_over::ObjectAddresses;
use job::trace::line;
use job::variables::project_path;

use super::Failure;
use crate::run::Run;
use crate::transfer::{Patience, Transfer};
use crate::workspace::{Environment, variable};

pub struct CacheStore<'a> {
    pub run: &'a Run,
    pub environment: Environment,
    /// Of this project.
    directory: PathBuf,
    http: reqwest::Client,
}

impl<'a> CacheStore<'a> {
    /// `status` is the `CI_JOB_STATUS` of the stage.
    pub fn open(run: &'a Run, status: &str) -> Result<Self, Failure> {
        let environment = run
            .workspace
            .environment(&run.variables, status)
            .map_err(|error| Failure::system(format!("cannot write the stage's files: {error}")))?;
        // GitLab's helper sees the job's variables, so they choose its proxies.
        let proxies = Proxies::of(|name| variable(&environment, name));
        let http = gitlab::elsewhere(run.gitlab.tls_ca.clone(), &proxies)
            .map_err(|error| Failure::system(format!("cannot reach any store of caches: {error}")))?;
        let directory = Path::new(&run.runner.cache_dir).join(project_path(&run.payload));
        Ok(Self { run, environment, directory, http })
    }

    pub fn variable(&self, name: &str) -> Option<String> {
        variable(&self.environment, name)
    }

    /// The key, if there is one; says what has to be said about it.
    pub fn told(&self, named: Named, what: &str) -> Option<Key> {
        for warning in &named.warnings {
            self.run.say(&line::warning(warning));
        }
        if named.key == Err(NoKey::Empty) {
            self.run.say(&line::info(&format!("Skipping cache {what} due to empty cache key")));
        }
        named.key.ok()
    }

    /// What may be done with an object of the runner's store.
    pub fn addresses(&self, place: &Place) -> Option<ObjectAddresses> {
        self.run.caches.newest()?.objects.remove(&place.object()?)
    }

    /// The file of an archive, in a directory that exists. A user who may not write to `cache_dir` has the project's own
    /// directory: where there is a store, what lies in the task is only on its way.
    pub fn archive(&self, place: &Place) -> io::Result<PathBuf> {
        let in_directory = |directory: &Path| {
            let file = place.archive(directory).ok_or_else(|| io::Error::other("its name leaves the directory"))?;
            let parent = file.parent().unwrap_or(directory);
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map(|()| file)
        };
        in_directory(&self.directory).or_else(|error| {
            let beside = self.run.workspace.temporary.join("caches");
            if self.run.caches.newest().is_some() { in_directory(&beside) } else { Err(error) }
        })
    }

    /// An archive that lies in the task.
    pub fn kept(&self, place: &Place) -> Option<PathBuf> {
        place.archive(&self.directory).filter(|file| file.is_file())
    }

    pub fn transfer(&self) -> Transfer<'a> {
        let (run, patience) = (self.run, Patience::new(self.run.settings.cache_request_timeout));
        Transfer { http: self.http.clone(), patience, tell: Box::new(|note| run.tell(&note)) }
    }
}
