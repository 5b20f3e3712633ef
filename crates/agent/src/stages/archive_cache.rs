//! `archive_cache` and `archive_cache_on_failure`: what the next job is to find (protocol 6.5). A cache that cannot be saved
//! fails no job.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use job::cache::{Key, Policy};
use job::payload::Cache;
use job::trace::line;
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::Failure;
use super::cache_store::CacheStore;
use super::packing::{LIMITS, expanded, untracked};
use crate::archive::in_words;
use crate::archive::select::{Wanted, select};
use crate::archive::write::{DEFAULT_LEVEL, compression_level, write};
use crate::blocking::WhileWanted;
use crate::run::Run;
use crate::transfer::write_metadata;

/// `status` is the `CI_JOB_STATUS` that the script left.
pub async fn run(run: &Run, succeeded: bool, status: &str) -> Result<(), Failure> {
    let applies = |cache: &&Cache| cache.is_used() && cache.when.applies(succeeded);
    let wanted: Vec<_> = run.payload.cache.iter().filter(applies).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (name, title) = match succeeded {
        true => ("archive_cache", "Saving cache for successful job"),
        false => ("archive_cache_on_failure", "Saving cache for failed job"),
    };
    run.section(name, title, save_all(run, &wanted, status)).await
}

async fn save_all(run: &Run, wanted: &[&Cache], status: &str) -> Result<(), Failure> {
    let store = CacheStore::open(run, status)?;
    for cache in wanted {
        let Some(key) = store.told(cache.own_key(&run.payload, &run.variables), "archiving") else { continue };
        let policy = cache.policy(&run.variables);
        let policy = policy.map_err(|error| Failure::system(format!("{error} for {}", key.human)))?;
        if policy == Policy::Pull {
            run.say(&line::info(&format!("Not uploading cache {} due to policy", key.human)));
            continue;
        }
        run.say(&line::info(&format!("Creating cache {}...", key.human)));
        match save(&store, cache, &key).await? {
            Ok(()) => run.say(&line::info("Created cache")),
            Err(reason) => {
                run.say(&line::warning(&reason));
                run.say(&line::warning("Failed to create cache"));
            }
        }
    }
    Ok(())
}

/// Packs and uploads one cache, or says why not.
async fn save(store: &CacheStore<'_>, cache: &Cache, key: &Key) -> Result<Result<(), String>, Failure> {
    let run = store.run;
    let entries = select_files(store, cache).await?;
    if entries.is_empty() {
        run.say(&line::warning("No files to cache."));
        return Ok(Ok(()));
    }
    let archive = match archive_of(store, key) {
        Ok(archive) => archive,
        Err(reason) => return Ok(Err(reason)),
    };
    let (project, looked_at) = (run.workspace.project.clone(), archive.clone());
    let changed = {
        let entries = entries.clone();
        run.blocking(LIMITS, move |_| is_changed(&project, &entries, &looked_at)).await?
    };
    if changed {
        if let Err(reason) = pack(store, key, entries, &archive).await? {
            return Ok(Err(reason));
        }
    } else if is_stored(store, key).await? {
        run.say("Archive is up to date!\n");
        return Ok(Ok(()));
    }
    upload(store, key, &archive).await
}

async fn select_files(store: &CacheStore<'_>, cache: &Cache) -> Result<BTreeSet<PathBuf>, Failure> {
    let run = store.run;
    let paths = expanded(run, &store.environment, LIMITS, "path", &cache.paths).await?;
    let untracked = if cache.untracked { Some(untracked(run, &store.environment).await?) } else { None };
    let project = run.workspace.project.clone();
    let selecting = move |_: &AtomicBool| {
        select(&project, &Wanted { paths: &paths, exclude: &[], untracked: untracked.as_deref() })
    };
    let selection = run.blocking(LIMITS, selecting).await?;
    selection.notes.iter().for_each(|note| run.tell(note));
    Ok(selection.entries)
}

/// The archive under its name; one that was kept under the other naming gets this one.
fn archive_of(store: &CacheStore<'_>, key: &Key) -> Result<PathBuf, String> {
    let cannot = |error| format!("cannot keep the cache: {}", in_words(&error));
    let archive = store.archive(&key.place).map_err(cannot)?;
    if !archive.exists()
        && let Some(other) = store.kept(&key.other)
        && fs::rename(other, &archive).is_ok()
    {
        store.run.say("Renamed alternate cache file to primary\n");
    }
    Ok(archive)
}

/// Whether a file is newer than the archive. One that was removed is not noticed, as in GitLab's runner.
fn is_changed(project: &Path, entries: &BTreeSet<PathBuf>, archive: &Path) -> bool {
    let modified = |path: &Path| fs::symlink_metadata(path).and_then(|found| found.modified());
    let Ok(packed) = modified(archive) else { return true };
    entries.iter().any(|entry| modified(&project.join(entry)).is_ok_and(|file| file > packed))
}

/// Whether what lies in the task is in the store as well: it may have come from the other name. Where there is no store,
/// lying in the task is all there is.
async fn is_stored(store: &CacheStore<'_>, key: &Key) -> Result<bool, Failure> {
    let Some(head) = store.addresses(&key.place).and_then(|addresses| addresses.head) else { return Ok(true) };
    let transfer = store.transfer();
    let there = store.run.unless_stopped(LIMITS, transfer.exists(&head)).await?;
    if !there {
        store.run.say("Primary cache does not exist remotely, uploading existing archive\n");
    }
    Ok(there)
}

async fn pack(
    store: &CacheStore<'_>,
    key: &Key,
    entries: BTreeSet<PathBuf>,
    archive: &Path,
) -> Result<Result<(), String>, Failure> {
    let run = store.run;
    let format = store.variable("CACHE_COMPRESSION_FORMAT").unwrap_or_default();
    if !matches!(format.to_ascii_lowercase().as_str(), "" | "zip") {
        run.say(&line::warning(&format!("CACHE_COMPRESSION_FORMAT {format:?} is not written by this runner; zip is")));
    }
    let word = store.variable("CACHE_COMPRESSION_LEVEL").unwrap_or_default();
    let level = compression_level(&word).unwrap_or_else(|| {
        run.say(&line::warning(&format!("compression level {word:?} is invalid, falling back to default")));
        DEFAULT_LEVEL
    });
    let has_store = store.addresses(&key.place).is_some();
    let (project, archive, human) = (run.workspace.project.clone(), archive.to_owned(), key.human.clone());
    let packing = move |abandoned: &AtomicBool| {
        if has_store {
            // The store has it: two archives at once may be more than the disk has room for.
            let _ = fs::remove_file(&archive);
        }
        let cannot = |error: std::io::Error| format!("cannot keep the cache: {}", in_words(&error));
        let directory = archive.parent().unwrap_or(Path::new("/"));
        let part = NamedTempFile::with_prefix_in("archive_", directory).map_err(cannot)?;
        let into = BufWriter::with_capacity(1 << 20, part.as_file());
        let mut into = WhileWanted { into, abandoned };
        write("zip", &project, &entries, level, &mut into).map_err(|error| error.to_string())?;
        into.flush().map_err(cannot)?;
        drop(into);
        part.persist(&archive).map_err(|error| cannot(error.error))?;
        let metadata = Map::from_iter([("cachekey".to_owned(), Value::String(human))]);
        write_metadata(&archive, metadata).map_err(cannot)
    };
    run.blocking(LIMITS, packing).await
}

async fn upload(store: &CacheStore<'_>, key: &Key, archive: &Path) -> Result<Result<(), String>, Failure> {
    let run = store.run;
    let Some(put) = store.addresses(&key.place).and_then(|addresses| addresses.put) else {
        run.say(
            "No URL provided, cache will not be uploaded to shared cache server. Cache will be stored only locally.\n",
        );
        return Ok(Ok(()));
    };
    let size = fs::metadata(archive).map_or(0, |found| found.len());
    let most = run.caches.newest().map_or(0, |caches| caches.max_archive_size);
    if most != 0 && size > most {
        run.say(&format!(
            "Cache archive size ({size}) is too big (Limit is set to {most}). Cache will be stored only locally.\n"
        ));
        return Ok(Ok(()));
    }
    let transfer = store.transfer();
    let sent = run.unless_stopped(LIMITS, transfer.upload(&put, archive)).await?;
    Ok(sent.map_err(|error| error.to_string()))
}
