//! Unpacking a zip of another job, which may have been made to leave its directory (protocol 5.5).

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::civil;
use jiff::tz::TimeZone;
use zip::read::ZipFile;
use zip::{ExtraField, ZipArchive};

#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("the archive cannot be read: {0}")]
    Unreadable(String),
    #[error("the archive contains {0:?}, which is outside of the project directory")]
    Escapes(String),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
}

/// What is set only after all files are there: a directory may be read-only, and writing into it changes its time.
struct Directory {
    path: PathBuf,
    mode: Option<u32>,
    modified: Option<SystemTime>,
}

/// Unpacks all entries below `root`, over what is there; returns how many they were. An entry that
/// leaves `root` by its name, or through a link, ends the extraction.
pub fn extract(archive: File, root: &Path) -> Result<usize, ExtractError> {
    let mut magic = [0; 4];
    let mut archive = archive;
    let read = archive.read(&mut magic).and_then(|read| io::Seek::rewind(&mut archive).map(|()| read));
    match (read, magic) {
        (Ok(_), [0x1f, 0x8b, ..]) => return Err(ExtractError::Unreadable("it is gzip, which has no directory".into())),
        (Ok(_), [0x28, 0xb5, 0x2f, 0xfd]) => {
            return Err(ExtractError::Unreadable("tar with zstd is not supported".into()));
        }
        (Ok(_), _) => {}
        (Err(error), _) => return Err(ExtractError::Unreadable(error.to_string())),
    }
    let root = root.canonicalize().map_err(|source| ExtractError::File { path: root.into(), source })?;
    let mut zip =
        ZipArchive::new(io::BufReader::new(archive)).map_err(|error| ExtractError::Unreadable(error.to_string()))?;
    let mut directories = Vec::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| ExtractError::Unreadable(error.to_string()))?;
        if let Some(directory) = extract_entry(&mut entry, &root)? {
            directories.push(directory);
        }
    }
    for directory in directories.iter().rev() {
        // A later entry may have put a link in its place.
        let still = directory.path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if !still || !leads_inside(&directory.path, &root) {
            continue;
        }
        set_mode(&directory.path, directory.mode)
            .map_err(|source| ExtractError::File { path: directory.path.clone(), source })?;
        set_time(&directory.path, directory.modified);
    }
    Ok(zip.len())
}

fn extract_entry<R: Read>(entry: &mut ZipFile<'_, R>, root: &Path) -> Result<Option<Directory>, ExtractError> {
    let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
    let Some(relative) = enclosed(entry.name_raw()) else { return Err(ExtractError::Escapes(name)) };
    let path = root.join(&relative);
    let failed = |source| ExtractError::File { path: relative.clone(), source };
    if relative.as_os_str().is_empty() {
        return Ok(None);
    }
    // A link made earlier, by this archive or by the repository, must not lead out.
    let parent = path.parent().unwrap_or(root);
    if !leads_inside(parent, root) {
        return Err(ExtractError::Escapes(name));
    }
    let modified = modified(entry);
    if entry.is_dir() {
        if path.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(&path).map_err(failed)?;
        }
        fs::create_dir_all(&path).map_err(failed)?;
        return Ok(Some(Directory { path, mode: entry.unix_mode(), modified }));
    }
    fs::create_dir_all(parent).map_err(failed)?;
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&path).map_err(failed)?,
        Ok(_) => fs::remove_file(&path).map_err(failed)?,
        Err(_) => {}
    }
    if entry.is_symlink() {
        let mut target = Vec::new();
        entry.take(4096).read_to_end(&mut target).map_err(failed)?;
        symlink(OsStr::from_bytes(&target), &path).map_err(failed)?;
    } else {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        io::copy(entry, &mut file).map_err(failed)?;
        drop(file);
        set_mode(&path, entry.unix_mode()).map_err(failed)?;
        set_time(&path, modified);
    }
    Ok(None)
}

/// The path of an entry, if it stays inside. Stricter than a zip needs, but not as strict as the zip crate,
/// which refuses names that only Windows dislikes.
fn enclosed(name: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(name));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (plain && !name.contains(&0)).then(|| path.components().filter(|part| *part != Component::CurDir).collect())
}

/// Whether the nearest directory that exists on the way to `path` is really below `root`.
fn leads_inside(path: &Path, root: &Path) -> bool {
    path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok()).is_some_and(|real| real.starts_with(root))
        && path.ancestors().take_while(|ancestor| *ancestor != root).all(|ancestor| {
            // A dangling link exists without being resolvable; a directory made through it would be outside.
            ancestor.symlink_metadata().is_err() || ancestor.canonicalize().is_ok()
        })
}

fn set_mode(path: &Path, mode: Option<u32>) -> io::Result<()> {
    match mode {
        Some(mode) => fs::set_permissions(path, Permissions::from_mode(mode & 0o7777)),
        None => Ok(()),
    }
}

/// Best effort: a wrong time never broke a job that a missing file would not have broken.
fn set_time(path: &Path, modified: Option<SystemTime>) {
    if let (Some(modified), Ok(file)) = (modified, File::open(path)) {
        let _ = file.set_times(FileTimes::new().set_modified(modified));
    }
}

fn modified<R: Read>(entry: &ZipFile<'_, R>) -> Option<SystemTime> {
    let exact = entry.extra_data_fields().find_map(|field| match field {
        ExtraField::ExtendedTimestamp(times) => times.mod_time(),
        _ => None,
    });
    if let Some(seconds) = exact {
        return Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()));
    }
    let time = entry.last_modified()?;
    let part = |value: u8| i8::try_from(value).ok();
    let date = civil::DateTime::new(
        i16::try_from(time.year()).ok()?,
        part(time.month())?,
        part(time.day())?,
        part(time.hour())?,
        part(time.minute())?,
        part(time.second())?,
        0,
    );
    Some(date.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{Seek, Write};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::archive::write::write;

    fn archive(make: impl FnOnce(&mut ZipWriter<File>)) -> File {
        let file = tempfile::tempfile().expect("a file");
        let mut writer = ZipWriter::new(file);
        make(&mut writer);
        let mut file = writer.finish().expect("a zip");
        file.rewind().expect("a file on disk");
        file
    }

    fn file(writer: &mut ZipWriter<File>, name: &str, content: &str) {
        writer.start_file(name, SimpleFileOptions::default()).expect("an entry");
        writer.write_all(content.as_bytes()).expect("an entry");
    }

    #[test]
    fn what_was_archived_comes_back_with_modes_links_and_times() {
        let (from, to) = (tempfile::tempdir().expect("from"), tempfile::tempdir().expect("to"));
        fs::create_dir(from.path().join("d")).expect("a directory");
        let program = from.path().join("d/run.sh");
        fs::write(&program, "#!/bin/sh\n").expect("a file");
        set_mode(&program, Some(0o755)).expect("a mode");
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_891);
        set_time(&program, Some(old));
        symlink("run.sh", from.path().join("d/link")).expect("a link");
        symlink("/nowhere/else", from.path().join("d/dangling")).expect("a link");
        set_mode(&from.path().join("d"), Some(0o555)).expect("a mode");
        nix::unistd::mkfifo(&from.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");

        let entries = ["d", "d/run.sh", "d/link", "d/dangling", "pipe", "vanished"].map(PathBuf::from);
        let mut zip = tempfile::tempfile().expect("a file");
        let handle = zip.try_clone().expect("the same file");
        write("zip", from.path(), &BTreeSet::from(entries), Some(5), handle).expect("a zip");
        zip.rewind().expect("a file on disk");
        assert_eq!(extract(zip, to.path()).expect("unpacked"), 4);

        let program = to.path().join("d/run.sh");
        let metadata = program.metadata().expect("the file");
        assert_eq!(fs::read_to_string(&program).expect("the file"), "#!/bin/sh\n");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
        assert_eq!(metadata.modified().expect("a time"), old);
        assert_eq!(fs::read_link(to.path().join("d/link")).expect("a link"), Path::new("run.sh"));
        assert_eq!(fs::read_link(to.path().join("d/dangling")).expect("a link"), Path::new("/nowhere/else"));
        assert_eq!(to.path().join("d").metadata().expect("it").permissions().mode() & 0o7777, 0o555);
        assert!(!to.path().join("pipe").exists());
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("project");
        fs::create_dir(&root).expect("a directory");
        for name in ["../evil", "a/../../evil", "/evil-of-staffetta"] {
            let zip = archive(|writer| file(writer, name, "evil"));
            let result = extract(zip, &root);
            assert!(!dir.path().join("evil").exists() && !Path::new("/evil-of-staffetta").exists(), "{name}");
            assert!(matches!(result, Err(ExtractError::Escapes(_))), "{name}: {result:?}");
        }
    }

    #[test]
    fn a_link_cannot_lead_a_later_entry_outside() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, outside) = (dir.path().join("project"), dir.path().join("outside"));
        for target in [outside.to_str().expect("UTF-8"), "../outside", "../not-there-yet"] {
            fs::create_dir_all(&root).and_then(|()| fs::create_dir_all(&outside)).expect("directories");
            let zip = archive(|writer| {
                writer.add_symlink("link", target, SimpleFileOptions::default()).expect("an entry");
                file(writer, "link/evil", "evil");
            });
            assert!(matches!(extract(zip, &root), Err(ExtractError::Escapes(_))), "{target}");
            assert!(!outside.join("evil").exists() && !dir.path().join("not-there-yet").exists(), "{target}");
            fs::remove_dir_all(&root).expect("the directory");
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_does_not_lead_its_mode_outside() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, outside) = (dir.path().join("project"), dir.path().join("outside"));
        fs::create_dir(&root).and_then(|()| fs::create_dir_all(outside.join("e"))).expect("directories");
        for path in [&outside, &outside.join("e")] {
            set_mode(path, Some(0o700)).expect("a mode");
        }
        let open = SimpleFileOptions::default().unix_permissions(0o777);
        let zip = archive(|writer| {
            writer.add_directory("d", open).and_then(|()| writer.add_directory("d/e", open)).expect("entries");
            writer.add_symlink("d", "../outside", SimpleFileOptions::default()).expect("an entry");
        });
        extract(zip, &root).expect("unpacked");
        for path in [&outside, &outside.join("e")] {
            assert_eq!(path.metadata().expect("it").permissions().mode() & 0o7777, 0o700, "{}", path.display());
        }
    }

    #[test]
    fn a_file_replaces_a_link_instead_of_following_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, outside) = (dir.path().join("project"), dir.path().join("outside"));
        fs::create_dir(&root).and_then(|()| fs::write(&outside, "kept")).expect("files");
        symlink(&outside, root.join("file")).expect("a link");
        extract(archive(|writer| file(writer, "file", "new")), &root).expect("unpacked");
        assert_eq!(fs::read_to_string(&outside).expect("the file"), "kept");
        assert_eq!(fs::read_to_string(root.join("file")).expect("the file"), "new");
    }

    #[test]
    fn a_link_within_the_project_may_be_used() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("real")).expect("a directory");
        symlink("real", dir.path().join("link")).expect("a link");
        extract(archive(|writer| file(writer, "link/new", "x")), dir.path()).expect("unpacked");
        assert!(dir.path().join("real/new").exists());
    }

    #[test]
    fn names_that_only_windows_dislikes_are_welcome() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a:b", "aux.c", "dot.", "./plain", "back\\slash"] {
            extract(archive(|writer| file(writer, name, name)), dir.path()).expect(name);
            assert_eq!(fs::read_to_string(dir.path().join(name)).expect(name), name);
        }
    }

    #[test]
    fn what_is_no_zip_is_said_to_be_so() {
        let dir = tempfile::tempdir().expect("a directory");
        for bytes in [&b"\x1f\x8bxxxx"[..], b"\x28\xb5\x2f\xfdxx", b"<html>", b""] {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(bytes).and_then(|()| file.rewind()).expect("a file");
            assert!(matches!(extract(file, dir.path()), Err(ExtractError::Unreadable(_))), "{bytes:?}");
        }
    }
}
