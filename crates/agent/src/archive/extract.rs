//! Unpacking a zip of another job, which may have been made to leave its directory (protocol 5.5).

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use jiff::civil;
use jiff::tz::TimeZone;
use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{ExtraField, ZipArchive};

use super::ahead::Ahead;
use super::in_words;
use super::zip_stream::UNIX_OWNER;

#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("the archive cannot be read: {0}")]
    Unreadable(String),
    /// The archive is whole, but not this entry.
    #[error("the archive contains {entry:?}, which cannot be read: {reason}")]
    Corrupt { entry: String, reason: String },
    #[error("the archive contains {0:?}, which is outside of the project directory")]
    Escapes(String),
    #[error("cannot unpack {path}: {reason}", path = path.display(), reason = in_words(source))]
    File { path: PathBuf, source: io::Error },
    #[error("nobody waits for the files")]
    Abandoned,
}

/// Unpacks all entries below `root`, over what is there; returns how many they were. An entry that
/// leaves `root` by its name, or through a link, ends the extraction, and so does `abandoned`.
pub fn extract(mut archive: File, root: &Path, abandoned: &AtomicBool) -> Result<usize, ExtractError> {
    let unreadable = |error: &dyn std::fmt::Display| ExtractError::Unreadable(error.to_string());
    let mut start = [0; 16];
    let read = archive.read(&mut start).and_then(|read| archive.rewind().map(|()| read));
    if let Some(what) = something_else(&start[..read.map_err(|error| unreadable(&error))?]) {
        return Err(ExtractError::Unreadable(what.into()));
    }
    let mut zip = ZipArchive::new(Ahead::new(archive)).map_err(|error| unreadable(&error))?;
    let root = root.canonicalize().map_err(|source| ExtractError::File { path: root.into(), source })?;
    let user = (nix::unistd::geteuid(), nix::unistd::getegid());
    let us = user.0.is_root().then(|| (user.0.as_raw(), user.1.as_raw()));
    let mut extraction = Extraction { root: &root, abandoned, us, inside: HashSet::new(), directories: Vec::new() };
    for index in 0..zip.len() {
        match zip.by_index(index).map(|mut entry| extraction.entry(&mut entry)) {
            Ok(done) => done?,
            Err(error) => {
                let entry = zip.name_for_index(index).and_then(Result::ok).unwrap_or_default().into_owned();
                return Err(ExtractError::Corrupt { entry, reason: reason(&error) });
            }
        }
    }
    extraction.finish()?;
    Ok(zip.len())
}

/// Of copying.
const BUFFER: usize = 32 * 1024;

/// What the first bytes say, if they are surely not those of a zip.
fn something_else(start: &[u8]) -> Option<&'static str> {
    match start {
        [] => Some("it is empty"),
        [0x1f, 0x8b, ..] => Some("it is gzip, which has no directory"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("it is tar with zstd, which this runner does not unpack"),
        [b'<', ..] => Some("it is a page of HTML or XML; is a proxy or a login page in between?"),
        _ => None,
    }
}

fn reason(error: &ZipError) -> String {
    match error {
        ZipError::UnsupportedArchive(why) => format!("{why} (this runner knows store and deflate)"),
        error => error.to_string(),
    }
}

struct Extraction<'r> {
    /// Without any link on the way to it.
    root: &'r Path,
    abandoned: &'r AtomicBool,
    /// User and group, if they may give files away.
    us: Option<(u32, u32)>,
    /// Directories that were found to be below the root. Looking costs more than writing a small file.
    inside: HashSet<PathBuf>,
    directories: Vec<Directory>,
}

/// What is set only after all files are there: a directory may be read-only, and writing into it changes its time.
struct Directory {
    path: PathBuf,
    attributes: Attributes,
}

/// What an entry says of its file, beside the content.
struct Attributes {
    mode: Option<u32>,
    modified: Option<SystemTime>,
    owner: Option<(u32, u32)>,
}

impl Extraction<'_> {
    fn entry<R: Read>(&mut self, entry: &mut ZipFile<'_, R>) -> Result<(), ExtractError> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(ExtractError::Abandoned);
        }
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let Some(relative) = enclosed(entry.name_raw()) else { return Err(ExtractError::Escapes(name)) };
        if relative.as_os_str().is_empty() {
            return Ok(());
        }
        let path = self.root.join(&relative);
        let failed = |source| ExtractError::File { path: relative.clone(), source };
        let parent = path.parent().unwrap_or(self.root);
        if !self.inside.contains(parent) {
            // A link made earlier, by this archive or by the repository, must not lead out.
            if !leads_inside(parent, self.root) {
                return Err(ExtractError::Escapes(name));
            }
            fs::create_dir_all(parent).map_err(failed)?;
            self.inside.insert(parent.to_owned());
        }
        let attributes = Attributes::of(entry, self.us);
        if entry.is_dir() {
            self.make_room(&path, true).map_err(failed)?;
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => self.directories.push(Directory { path, attributes }),
            }
        } else if entry.is_symlink() {
            let mut target = Vec::new();
            entry.take(4096).read_to_end(&mut target).map_err(|error| corrupt(&name, &error))?;
            self.make_room(&path, false).map_err(failed)?;
            symlink(OsStr::from_bytes(&target), &path).map_err(failed)?;
            attributes.give_away(&path);
        } else {
            let create = || OpenOptions::new().write(true).create_new(true).open(&path);
            let mut file = match create() {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.make_room(&path, false).and_then(|()| create()).map_err(failed)?
                }
                created => created.map_err(failed)?,
            };
            self.copy(entry, &mut file, &name, &relative)?;
            attributes.give_away(&path);
            attributes.set(&file).map_err(failed)?;
        }
        Ok(())
    }

    /// Tells an entry that cannot be read from a disk that takes no more.
    fn copy(&self, entry: &mut impl Read, file: &mut File, name: &str, path: &Path) -> Result<(), ExtractError> {
        let mut buffer = vec![0; BUFFER];
        while !self.abandoned.load(Ordering::Relaxed) {
            match entry.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => file
                    .write_all(&buffer[..read])
                    .map_err(|source| ExtractError::File { path: path.to_owned(), source })?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(corrupt(name, &error)),
            }
        }
        Err(ExtractError::Abandoned)
    }

    /// Removes what stands in the way.
    fn make_room(&mut self, path: &Path, for_directory: bool) -> io::Result<()> {
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() && for_directory => return Ok(()),
            Ok(found) if found.is_dir() => fs::remove_dir_all(path)?,
            Ok(_) => fs::remove_file(path)?,
            Err(_) => return Ok(()),
        }
        // What was known of the directories below it is no longer true.
        self.inside.clear();
        Ok(())
    }

    fn finish(self) -> Result<(), ExtractError> {
        for Directory { path, attributes } in self.directories.iter().rev() {
            // A later entry may have put a link in its place.
            let still = path.symlink_metadata().is_ok_and(|found| found.is_dir());
            if !still || !leads_inside(path, self.root) {
                continue;
            }
            let set = || {
                attributes.give_away(path);
                attributes.set(&File::open(path)?)
            };
            set().map_err(|source| ExtractError::File { path: path.clone(), source })?;
        }
        Ok(())
    }
}

fn corrupt(entry: &str, error: &io::Error) -> ExtractError {
    ExtractError::Corrupt { entry: entry.to_owned(), reason: error.to_string() }
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

impl Attributes {
    /// With an owner only if it is another one than `us`, who may give files away.
    fn of<R: Read>(entry: &ZipFile<'_, R>, us: Option<(u32, u32)>) -> Self {
        let owner = entry.extra_data_fields().find_map(|field| match field {
            ExtraField::Custom(field) if field.header_id == UNIX_OWNER => owner(&field.data),
            _ => None,
        });
        let owner = owner.filter(|owner| us.is_some_and(|us| us != *owner));
        Self { mode: entry.unix_mode(), modified: modified(entry), owner }
    }

    /// Best effort, like the time: only root can, and often nobody else needs it. Before the mode, which it would change.
    fn give_away(&self, path: &Path) {
        if let Some((uid, gid)) = self.owner {
            let _ = lchown(path, Some(uid), Some(gid));
        }
    }

    fn set(&self, file: &File) -> io::Result<()> {
        if let Some(mode) = self.mode {
            file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some(modified) = self.modified {
            // A wrong time never broke a job that a missing file would not have broken.
            let _ = file.set_times(FileTimes::new().set_modified(modified));
        }
        Ok(())
    }
}

/// Version 1 of the field: each number behind its length.
fn owner(field: &[u8]) -> Option<(u32, u32)> {
    let (&[1, 4], rest) = field.split_first_chunk()? else { return None };
    let (uid, rest) = rest.split_first_chunk()?;
    let (&[4], rest) = rest.split_first_chunk()? else { return None };
    let (gid, _) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*uid), u32::from_le_bytes(*gid)))
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
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::archive::write::write;

    fn extract(archive: File, root: &Path) -> Result<usize, ExtractError> {
        super::extract(archive, root, &AtomicBool::new(false))
    }

    #[test]
    fn what_nobody_waits_for_is_not_unpacked() {
        let dir = tempfile::tempdir().expect("a directory");
        let zip = archive(|writer| file(writer, "file", "x"));
        let ended = super::extract(zip, dir.path(), &AtomicBool::new(true));
        assert!(matches!(ended, Err(ExtractError::Abandoned)) && !dir.path().join("file").exists());
    }

    fn archive(make: impl FnOnce(&mut ZipWriter<File>)) -> File {
        let file = tempfile::tempfile().expect("a file");
        let mut writer = ZipWriter::new(file);
        make(&mut writer);
        let mut file = writer.finish().expect("a zip");
        file.rewind().expect("a file on disk");
        file
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
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
        set_mode(&program, 0o755);
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_891);
        File::open(&program).and_then(|file| file.set_modified(old)).expect("a time");
        symlink("run.sh", from.path().join("d/link")).expect("a link");
        symlink("/nowhere/else", from.path().join("d/dangling")).expect("a link");
        set_mode(&from.path().join("d"), 0o555);
        nix::unistd::mkfifo(&from.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");

        let entries = ["d", "d/run.sh", "d/link", "d/dangling", "pipe", "vanished"].map(PathBuf::from);
        let mut zip = tempfile::tempfile().expect("a file");
        write("zip", from.path(), &BTreeSet::from(entries), 5, &mut zip).expect("a zip");
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
            set_mode(path, 0o700);
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
        for (bytes, why) in [
            (&b"\x1f\x8bxxxx"[..], "gzip"),
            (b"\x28\xb5\x2f\xfdxx", "zstd"),
            (b"<html>", "HTML"),
            (b"", "empty"),
            (b"PK but no more", "archive"),
        ] {
            let error = extract(holding(bytes), dir.path()).expect_err(why);
            assert!(matches!(&error, ExtractError::Unreadable(text) if text.contains(why)), "{error}");
        }
    }

    fn holding(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).and_then(|()| file.rewind()).expect("a file");
        file
    }

    fn bytes_of(mut archive: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).expect("a file");
        bytes
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let content = "what is damaged";
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut bytes = bytes_of(archive(|writer| {
            file(writer, "good", "good");
            writer.start_file("bad", stored).expect("an entry");
            writer.write_all(content.as_bytes()).expect("an entry");
        }));
        let at = bytes.windows(content.len()).position(|window| window == content.as_bytes()).expect("the content");
        bytes[at] ^= 1;
        let error = extract(holding(&bytes), dir.path()).expect_err("a damaged archive");
        assert!(matches!(&error, ExtractError::Corrupt { entry, .. } if entry == "bad"), "{error}");
    }

    #[test]
    fn an_archive_that_is_cut_off_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let bytes = bytes_of(archive(|writer| file(writer, "file", &"content ".repeat(1000))));
        for keep in [4, bytes.len() / 2, bytes.len() - 1] {
            assert!(matches!(extract(holding(&bytes[..keep]), dir.path()), Err(ExtractError::Unreadable(_))), "{keep}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("it").count(), 0);
    }

    #[test]
    fn a_path_through_a_file_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let zip = archive(|writer| {
            file(writer, "file", "x");
            file(writer, "file/below", "x");
        });
        let error = extract(zip, dir.path()).expect_err("it cannot be there").to_string();
        assert!(error.contains("file/below"), "{error}");
    }

    #[test]
    fn a_link_that_takes_the_place_of_a_directory_in_use_leads_nothing_outside() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, outside) = (dir.path().join("project"), dir.path().join("outside"));
        fs::create_dir(&root).and_then(|()| fs::create_dir(&outside)).expect("directories");
        let zip = archive(|writer| {
            file(writer, "d/one", "x");
            writer.add_symlink("d", "../outside", SimpleFileOptions::default()).expect("an entry");
            file(writer, "d/two", "x");
        });
        assert!(matches!(extract(zip, &root), Err(ExtractError::Escapes(name)) if name == "d/two"));
        assert_eq!(fs::read_dir(&outside).expect("it").count(), 0);
    }

    /// A file system of a few pages.
    struct Small(PathBuf);

    impl Drop for Small {
        fn drop(&mut self) {
            nix::mount::umount(&self.0).expect("it is mounted");
        }
    }

    #[test]
    fn a_full_disk_is_told_with_what_can_be_done() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some("size=64k")).expect("a small tmpfs");
        let _mounted = Small(dir.path().to_owned());
        let zip = archive(|writer| file(writer, "large", &"x".repeat(1 << 20)));
        let error = extract(zip, dir.path()).expect_err("no room").to_string();
        assert_eq!(
            error,
            "cannot unpack large: the disk is full; a task definition may ask for more (ephemeralStorage)"
        );
    }

    #[test]
    fn what_zip_archives_is_unpacked() {
        let (from, to) = (tempfile::tempdir().expect("from"), tempfile::tempdir().expect("to"));
        let archive = to.path().join("archive.zip");
        let script = "mkdir -p d/e && head -c 300000 /dev/zero > d/zeros && echo x > 'd/e/ü b' && ln -s ../d d/link && \
                      chmod 600 d/zeros && touch -d @1234567890 d/zeros && zip -qry \"$0\" .";
        let made = std::process::Command::new("sh").args(["-c", script]).arg(&archive).current_dir(&from).status();
        assert!(made.expect("zip").success());
        let root = to.path().join("project");
        fs::create_dir(&root).expect("a directory");
        extract(File::open(&archive).expect("the archive"), &root).expect("unpacked");
        let zeros = root.join("d/zeros").metadata().expect("it");
        assert_eq!((zeros.len(), zeros.permissions().mode() & 0o777), (300_000, 0o600));
        assert_eq!(zeros.modified().expect("a time"), SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890));
        assert_eq!(fs::read_to_string(root.join("d/e/ü b")).expect("it"), "x\n");
        assert_eq!(fs::read_link(root.join("d/link")).expect("it"), Path::new("../d"));
    }

    #[test]
    fn names_in_any_encoding_come_back_byte_by_byte() {
        let (from, to) = (tempfile::tempdir().expect("from"), tempfile::tempdir().expect("to"));
        let name = Path::new(OsStr::from_bytes(b"caf\xe9/\xff\xfe"));
        fs::create_dir(from.path().join(name.parent().expect("it has one"))).expect("a directory");
        fs::write(from.path().join(name), "x").expect("a file");
        let mut zip = tempfile::tempfile().expect("a file");
        write("zip", from.path(), &BTreeSet::from([name.to_owned()]), 5, &mut zip).expect("a zip");
        zip.rewind().expect("a file on disk");
        extract(zip, to.path()).expect("unpacked");
        assert!(to.path().join(name).is_file());
    }

    proptest::proptest! {
        #[test]
        fn whatever_an_archive_names_nothing_is_written_outside(
            entries in proptest::collection::vec(("(\\.\\./|/|a/|b/|\\./){0,4}(a|b|\\.\\.)", "(\\.\\./|/|a|b){1,3}", proptest::bool::ANY), 1..6)
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let root = dir.path().join("x/project");
            fs::create_dir_all(&root).expect("a directory");
            let zip = archive(|writer| {
                for (name, target, link) in &entries {
                    // The writer takes no name twice; the rest of the archive is as good.
                    if *link {
                        let _ = writer.add_symlink(name.as_str(), target.as_str(), SimpleFileOptions::default());
                    } else if writer.start_file(name.as_str(), SimpleFileOptions::default()).is_ok() {
                        writer.write_all(b"x").expect("an entry");
                    }
                }
            });
            // Some of these lead to /a or /b.
            let before = fs::read_dir("/").expect("it").count();
            let _ = extract(zip, &root);
            let names = |path: &Path| fs::read_dir(path).expect("it").map(|entry| entry.expect("it").file_name()).collect::<Vec<_>>();
            proptest::prop_assert_eq!(names(dir.path()), ["x"]);
            proptest::prop_assert_eq!(names(&dir.path().join("x")), ["project"]);
            proptest::prop_assert_eq!(fs::read_dir("/").expect("it").count(), before);
        }
    }
}
