//! A TOML file that programs and people change at the same time: one writer after another, and replaced whole or not at
//! all. Only a file that is a mount of its own, which nobody can replace, is written in place; should that be cut short,
//! the whole text is beside it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use nix::fcntl::{Flock, FlockArg};
use tempfile::NamedTempFile;
use toml_edit::DocumentMut;

use crate::config::owner::{folder, give_to_owner_of};

/// Room for one more `[[runners]]` entry with every key that there is.
const ONE_ENTRY: u64 = 16 << 10;

/// The next version of a file: an empty place beside it, with the room on the disk that it will need. Dropped without
/// [`NewVersion::write`], it leaves nothing.
pub struct NewVersion {
    file: PathBuf,
    /// Its owner is to own the new version.
    like: PathBuf,
    place: NamedTempFile,
}

impl NewVersion {
    /// Fails where writing would fail: a folder that cannot be written to, a full disk, a file that is not TOML. A
    /// folder that is missing is made, for its owner only.
    pub fn of(file: &Path) -> anyhow::Result<Self> {
        // A link stays one: what it points to is replaced.
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        Self::like(&file, &file)
    }

    /// The same of a file that belongs to whom another one belongs, such as the configuration that it is beside. A link
    /// is replaced: it could make root give away the file of somebody else.
    pub fn like(like: &Path, file: &Path) -> anyhow::Result<Self> {
        let folder = folder(file);
        let cannot_write = || format!("cannot write to {}", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(cannot_write)?;
        let length = parse(file, &read(file)?)?.to_string().len() as u64;
        // Mode 0600. Its name does not end in .toml: no program shall take it for a configuration.
        let mut place = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).with_context(cannot_write)?;
        io::copy(&mut io::Read::take(io::repeat(b'\n'), length + ONE_ENTRY), &mut place).with_context(cannot_write)?;
        place.as_file().sync_all().with_context(cannot_write)?;
        Ok(Self { file: file.to_owned(), like: like.to_owned(), place })
    }

    /// Puts the file in place as `change` makes it from its text of this moment; other writers wait.
    pub fn write(mut self, change: impl FnOnce(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
        let folder = folder(&self.file).to_owned();
        let cannot_write = || format!("cannot write {}", self.file.display());
        let handle = File::open(&folder).with_context(cannot_write)?;
        // The folder, for the file itself is another one after each write. A lock ends with its process.
        let locked =
            Flock::lock(handle, FlockArg::LockExclusive).map_err(|(_, error)| error).with_context(cannot_write)?;
        let before = read(&self.file)?;
        parse(&self.file, &before)?;
        let text = change(&before)?;
        parse(&self.file, &text).context("this would be written, and is a mistake of Staffetta")?;
        self.place.rewind().with_context(cannot_write)?;
        self.place.write_all(text.as_bytes()).with_context(cannot_write)?;
        self.place.as_file().set_len(text.len() as u64).with_context(cannot_write)?;
        give_to_owner_of(&self.like, self.place.as_file());
        self.place.as_file().sync_all().with_context(cannot_write)?;
        if let Err(error) = self.place.persist(&self.file) {
            // A file that is mounted into a container by itself cannot be replaced.
            if error.error.raw_os_error() != Some(nix::libc::EBUSY) {
                return Err(error.error).with_context(|| format!("cannot write {}", self.file.display()));
            }
            let (_, whole) = error.file.keep().with_context(|| format!("cannot write {}", self.file.display()))?;
            write_in_place(&self.file, &text)
                .with_context(|| format!("cannot write {}: its text is in {}", self.file.display(), whole.display()))?;
            let _ = fs::remove_file(whole);
        }
        // The name is on the disk only with its folder.
        locked.sync_all().with_context(|| format!("cannot write {}", self.file.display()))
    }
}

fn write_in_place(file: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A text that is empty when there is no file.
pub fn read(file: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", file.display())),
    }
}

/// The error shows the line's number and never the line: there may be a token in it.
pub fn parse(file: &Path, text: &str) -> anyhow::Result<DocumentMut> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let at = error.span().map_or(text.len(), |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        anyhow!("{}:{line}: not valid TOML: {}", file.display(), error.message())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn append(line: &str) -> impl FnOnce(&str) -> anyhow::Result<String> {
        move |text| Ok(format!("{text}{line}\n"))
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_and_its_folder_are_for_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("one/two/config.toml");
        NewVersion::of(&file).unwrap().write(append("a = 1")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert_eq!(names(file.parent().unwrap()), ["config.toml"]);
    }

    #[test]
    fn a_change_sees_what_was_written_since_the_room_was_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        let (one, two) = (NewVersion::of(&file).unwrap(), NewVersion::of(&file).unwrap());
        two.write(append("two = 2")).unwrap();
        one.write(append("one = 1")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two = 2\none = 1\n");
    }

    #[test]
    fn one_writer_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        let try_lock = || {
            let folder = File::open(directory.path()).unwrap();
            Flock::lock(folder, FlockArg::LockExclusiveNonblock).map(drop).map_err(|(_, error)| error)
        };
        let change = |text: &str| {
            assert_eq!(try_lock(), Err(nix::errno::Errno::EWOULDBLOCK), "nobody else writes now");
            Ok(text.to_owned())
        };
        NewVersion::of(&file).unwrap().write(change).unwrap();
        assert_eq!(try_lock(), Ok(()));
    }

    #[test]
    fn what_cannot_be_written_leaves_the_file_and_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, "a = 1\n").unwrap();
        let refused = NewVersion::of(&file).unwrap().write(|_| Err(anyhow!("no")));
        assert_eq!(refused.unwrap_err().to_string(), "no");
        assert!(NewVersion::of(&file).unwrap().write(append("not toml")).is_err());
        drop(NewVersion::of(&file).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\n");
        assert_eq!(names(directory.path()), ["config.toml"]);
    }

    #[test]
    fn a_file_that_is_not_toml_is_not_touched_and_its_tokens_are_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, "a = 1\ntoken = glrt-secret\n").unwrap();
        let told = format!("{:#}", NewVersion::of(&file).err().unwrap());
        assert!(told.contains("config.toml:2: not valid TOML") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("real.toml"), directory.path().join("config.toml"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        NewVersion::of(&link).unwrap().write(append("a = 1")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\n");

        NewVersion::like(&file, &link).unwrap().write(append("b = 2")).unwrap();
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink(), "but not one beside the configuration");
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 1\n");
    }
}
