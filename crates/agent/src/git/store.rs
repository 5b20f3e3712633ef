//! A new repository on the disk, in a state that a git can go on from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gix_pack::Bundle;
use gix_utils::progress::Discard;
use tokio::sync::mpsc;

use super::{GitError, Sources, broken};

/// Of an object, which is in memory as a whole when its name is computed and when it is checked out.
pub const LARGEST: usize = 512 << 20;

/// A `.git` directory.
#[derive(Clone)]
pub struct Repository {
    pub git: PathBuf,
    pub hash: gix_hash::Kind,
}

/// Takes the place of one that is there.
pub fn create(sources: &Sources) -> Result<Repository, GitError> {
    let hash = hash_kind(&sources.object_format)?;
    let git = sources.project.join(".git");
    match fs::remove_dir_all(&git) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    for part in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        fs::create_dir_all(git.join(part))?;
    }
    let (version, extensions) = match hash {
        gix_hash::Kind::Sha1 => (0, String::new()),
        other => (1, format!("[extensions]\n\tobjectFormat = {other}\n")),
    };
    let config = format!(
        "[core]\n\trepositoryFormatVersion = {version}\n\tfileMode = true\n\tbare = false\n\tlogAllRefUpdates = true\n\
         {extensions}{}",
        sources.settings
    );
    fs::write(git.join("config"), config)?;
    // As git leaves it until something is checked out.
    fs::write(git.join("HEAD"), "ref: refs/heads/none\n")?;
    Ok(Repository { git, hash })
}

pub fn hash_kind(object_format: &str) -> Result<gix_hash::Kind, GitError> {
    object_format.parse().map_err(|_| GitError::Broken(format!("{object_format:?} is not a format of objects")))
}

impl Repository {
    pub fn write_shallow(&self, commits: &BTreeSet<String>) -> io::Result<()> {
        match commits.is_empty() {
            true => Ok(()),
            false => {
                fs::write(self.git.join("shallow"), commits.iter().map(|id| format!("{id}\n")).collect::<String>())
            }
        }
    }

    /// All in one file, as `git pack-refs` puts them.
    pub fn write_references(&self, references: &BTreeMap<String, String>) -> io::Result<()> {
        let mut text = String::from("# pack-refs with: sorted \n");
        for (name, object) in references {
            let _ = writeln!(text, "{object} {name}");
        }
        fs::write(self.git.join("packed-refs"), text)
    }

    /// Writes the pack and its index while it arrives.
    pub fn store_pack(&self, arriving: mpsc::Receiver<Vec<u8>>, abandoned: &AtomicBool) -> Result<(), GitError> {
        let mut pack = Arriving { chunks: arriving, current: Vec::new(), read: 0 };
        let directory = self.git.join("objects/pack");
        // The server was told that we have nothing, so every delta has its base in the pack.
        let bases = None::<gix_odb::Handle>;
        let stored = Bundle::write_to_directory(
            &mut pack,
            Some(&directory),
            &mut Discard,
            abandoned,
            bases,
            self.hash,
            gix_pack::bundle::write::Options { alloc_limit_bytes: Some(LARGEST), ..Default::default() },
        );
        let stored = stored.map_err(|error| match error.is_resource_exhausted() {
            true => GitError::TooLarge,
            false => broken("the pack cannot be stored")(error),
        })?;
        for file in [stored.data_path, stored.index_path].into_iter().flatten() {
            // As git has them: other users of the task may read them.
            fs::set_permissions(file, Permissions::from_mode(0o444))?;
        }
        stored.keep_path.map_or(Ok(()), |keep: PathBuf| fs::remove_file(keep))?;
        Ok(())
    }

    pub fn objects(&self) -> Result<gix_odb::HandleArc, GitError> {
        let objects = gix_odb::at(self.git.join("objects"), self.hash)?;
        Ok(objects.into_arc()?)
    }

    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.git.join(name)
    }
}

/// A pack that comes from elsewhere, piece by piece.
struct Arriving {
    chunks: mpsc::Receiver<Vec<u8>>,
    current: Vec<u8>,
    read: usize,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Arriving {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.read == self.current.len() {
            match self.chunks.blocking_recv() {
                Some(next) => (self.current, self.read) = (next, 0),
                None => return Ok(&[]),
            }
        }
        Ok(&self.current[self.read..])
    }

    fn consume(&mut self, length: usize) {
        self.read += length;
    }
}
