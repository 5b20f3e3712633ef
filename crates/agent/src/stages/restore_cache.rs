//! `restore_cache`: what an earlier job saved, into the project directory (protocol 6.4). Whatever happens to a cache, the
//! job goes on; it is only slower.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicBool;

use job::cache::{Key, Policy};
use job::payload::Cache;
use job::trace::line;

use super::attempts::attempts;
use super::cache_store::CacheStore;
use super::packing::expanded;
use super::{Failure, RUNNING};
use crate::archive::extract::extract;
use crate::blocking::blocking;
use crate::note::Note;
use crate::run::Run;
use crate::stop::Limits;
use crate::transfer::{Fetched, Other};
use crate::workspace::open_regular;

pub async fn run(run: &Run) -> Result<(), Failure> {
    let wanted: Vec<_> = run.payload.cache.iter().filter(|cache| cache.is_used()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    attempts(run, run.settings.restore_cache_attempts, Limits::default(), |_| {
        run.section("restore_cache", "Restoring cache", restore_all(run, &wanted))
    })
    .await
}

async fn restore_all(run: &Run, wanted: &[&Cache]) -> Result<(), Failure> {
    let store = CacheStore::open(run, RUNNING)?;
    for cache in wanted {
        restore(&store, cache).await?;
    }
    Ok(())
}

async fn restore(store: &CacheStore<'_>, cache: &Cache) -> Result<(), Failure> {
    let run = store.run;
    let Some(own) = store.told(cache.own_key(&run.payload, &run.variables), "extraction") else { return Ok(()) };
    let policy = cache.policy(&run.variables);
    let policy = policy.map_err(|error| Failure::system(format!("{error} for {}", own.human)))?;
    if policy == Policy::Push {
        run.say(&line::info(&format!("Not downloading cache {} due to policy", own.human)));
        return Ok(());
    }
    let fallback = cache.fallback_keys(&run.variables).into_iter().filter_map(|named| store.told(named, "extraction"));
    let keys: Vec<_> = [own].into_iter().chain(fallback).collect();
    for key in &keys {
        run.say(&line::info(&format!("Checking cache for {}...", key.human)));
        match run.unless_stopped(Limits::default(), fetch(store, key)).await? {
            Ok(()) => {
                run.say(&line::info("Successfully extracted cache"));
                return Ok(());
            }
            Err(reason) => {
                run.say(&line::warning(&reason));
                run.say(&line::warning("Failed to extract cache"));
                if run.variables.flag("FF_CLEAN_UP_FAILED_CACHE_EXTRACT") {
                    clean_up(store, cache).await?;
                }
            }
        }
    }
    Ok(())
}

/// From the runner's store, if it has one, into the project. Without one what lies in the task is taken, which is never taken
/// instead of what could not be fetched: it may be old.
async fn fetch(store: &CacheStore<'_>, key: &Key) -> Result<(), String> {
    let archive = store.archive(&key.place).map_err(|error| format!("cannot keep the cache: {error}"))?;
    match store.addresses(&key.place).and_then(|addresses| addresses.get) {
        Some(get) => {
            let other = store.addresses(&key.other);
            let other =
                other.as_ref().and_then(|other| Some(Other { head: other.head.as_ref()?, get: other.get.as_ref()? }));
            let fetched = store.transfer().download(&get, other.as_ref(), &archive).await;
            match fetched.map_err(|error| error.to_string())? {
                Fetched::Saved => {}
                Fetched::UpToDate => store.run.say("cache.zip is up to date\n"),
                Fetched::Missing => return Err("file does not exist".into()),
            }
        }
        None => store.run.say(
            "No URL provided, cache will not be downloaded from shared cache server. Instead a local version of cache \
             will be extracted.\n",
        ),
    }
    // Where the directory lasts, anything may lie there.
    let file = open_regular(&archive).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "Cache file does not exist".to_owned(),
        _ => format!("{}: {error}", archive.display()),
    })?;
    let project = store.run.workspace.project.clone();
    let extracted = blocking(move |abandoned| extract(file, &project, abandoned)).await;
    let extracted = extracted.map_err(|error| format!("unpacking the cache: {error}"))?;
    extracted.map(drop).map_err(|error| error.to_string())
}

/// Removes what may have been unpacked in part.
async fn clean_up(store: &CacheStore<'_>, cache: &Cache) -> Result<(), Failure> {
    let (run, limits) = (store.run, Limits::default());
    let paths = expanded(run, &store.environment, limits, "path", &cache.paths).await?;
    let project = run.workspace.project.clone();
    let removing =
        move |_: &AtomicBool| -> Vec<Note> { paths.iter().flat_map(|path| remove(&project, path)).collect() };
    run.blocking(limits, removing).await?.iter().for_each(|note| run.tell(note));
    Ok(())
}

fn remove(project: &Path, path: &str) -> Vec<Note> {
    let mut notes = vec![Note::Info(format!("Removing {path}"))];
    let Some(inside) = inside(project, path) else { return notes };
    let removed = match fs::symlink_metadata(&inside) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&inside),
        Ok(_) => fs::remove_file(&inside),
        Err(error) => Err(error),
    };
    if let Err(error) = removed
        && error.kind() != ErrorKind::NotFound
    {
        notes.push(Note::Warning(format!("{path}: {error}")));
    }
    notes
}

/// The path below the project, if it is there and no link leads out of it; never the project itself.
fn inside(project: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path).strip_prefix(project).unwrap_or(Path::new(path));
    let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    if plain.as_os_str().is_empty() || !plain.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let whole = project.join(&plain);
    let parent = whole.parent()?.canonicalize().ok()?;
    parent.starts_with(project.canonicalize().ok()?).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_project_is_cleaned_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let project = dir.path().join("project");
        fs::create_dir_all(project.join("a/b")).expect("directories");
        std::os::unix::fs::symlink("..", project.join("out")).expect("a link");
        for (path, found) in
            [("a/b/", Some("a/b")), ("./a", Some("a")), ("out", Some("out")), ("missing", Some("missing"))]
        {
            assert_eq!(inside(&project, path), found.map(|found| project.join(found)), "{path}");
        }
        let absolute = project.join("a");
        assert_eq!(inside(&project, absolute.to_str().expect("UTF-8")), Some(absolute));
        for path in ["", ".", "./", "..", "../project", "a/../..", "/etc", "out/x", "a/b/missing/x/.."] {
            assert_eq!(inside(&project, path), None, "{path}");
        }
    }
}
