//! Writing an archive: zip, gzip or raw (protocol 5.3). Zip uses all cores, and a few blocks of memory.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use flate2::{Compression, GzBuilder};

use super::deflate::{self, BLOCK, Blocks, Deflated};
use super::zip_stream::{Head, Sum, ZipStream};

/// More threads only wait for the disk.
const MOST_WORKERS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    /// Where the archive goes to.
    #[error("cannot write the archive: {0}")]
    Into(io::Error),
    #[error("the file {path} is not a regular file", path = .0.display())]
    NotRegular(PathBuf),
    #[error("only one file can be sent as raw, and {0} match")]
    TooManyFiles(usize),
    #[error("the format {0:?} is not written by this runner; GitLab takes zip, gzip and raw")]
    Format(String),
}

/// The names of `ARTIFACT_COMPRESSION_LEVEL` and `CACHE_COMPRESSION_LEVEL`; `None` is none of them.
pub fn compression_level(word: &str) -> Option<u32> {
    match word {
        "fastest" => Some(0),
        "fast" => Some(1),
        "" | "default" => Some(DEFAULT_LEVEL),
        "slow" => Some(7),
        "slowest" => Some(9),
        _ => None,
    }
}

pub const DEFAULT_LEVEL: u32 = 5;

/// The suffix that GitLab expects at the name of an upload.
pub fn suffix(format: &str) -> Result<&'static str, ArchiveError> {
    match format {
        "" | "zip" => Ok(".zip"),
        "gzip" => Ok(".gz"),
        "raw" => Ok(""),
        _ => Err(ArchiveError::Format(format.into())),
    }
}

/// Looks, before anything is sent, whether the entries can be written in this format.
pub fn check(format: &str, project: &Path, entries: &BTreeSet<PathBuf>) -> Result<(), ArchiveError> {
    if format == "raw" && entries.len() > 1 {
        return Err(ArchiveError::TooManyFiles(entries.len()));
    }
    if matches!(format, "gzip" | "raw") {
        for path in entries {
            regular(project, path)?;
        }
    }
    suffix(format).map(drop)
}

/// Writes the entries, which are relative to `project`. Level 0 of a zip stores files as they are. What vanished since
/// it was selected is no error: scripts' leftovers come and go.
pub fn write(
    format: &str,
    project: &Path,
    entries: &BTreeSet<PathBuf>,
    level: u32,
    into: impl Write,
) -> Result<(), ArchiveError> {
    check(format, project, entries)?;
    match format {
        "gzip" => gzip(project, entries, into),
        "raw" => raw(project, entries, into),
        _ => zip(project, entries, level, into),
    }
}

fn zip(project: &Path, entries: &BTreeSet<PathBuf>, level: u32, into: impl Write) -> Result<(), ArchiveError> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let (sender, queue) = channel();
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| deflate::work(&queue, level));
        }
        let mut packing = Packing {
            project,
            level,
            blocks: Blocks::new(sender),
            parts: VecDeque::new(),
            most_parts: 2 * workers,
            zip: ZipStream::new(into),
        };
        for path in entries {
            packing.add(path)?;
        }
        packing.finish()
    })
}

/// Reads ahead of what the workers have done, and writes it in order.
struct Packing<'a, W> {
    project: &'a Path,
    level: u32,
    blocks: Blocks,
    /// What is read but not written yet.
    parts: VecDeque<Part>,
    most_parts: usize,
    zip: ZipStream<W>,
}

/// A part of an entry, often all of it.
struct Part {
    begins: Option<Head>,
    content: Content,
    ends: Option<Sum>,
}

enum Content {
    Ready(Vec<u8>),
    Coming(Receiver<Deflated>),
}

impl<W: Write> Packing<'_, W> {
    fn add(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let whole = self.project.join(path);
        let Some(metadata) = optional(path, fs::symlink_metadata(&whole))? else { return Ok(()) };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let mut head = head(path, &metadata);
            head.name.push(b'/');
            self.small(head, Vec::new())
        } else if kind.is_symlink() {
            let Some(target) = optional(path, fs::read_link(&whole))? else { return Ok(()) };
            self.small(head(path, &metadata), target.as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            let Some(file) = optional(path, File::open(&whole))? else { return Ok(()) };
            self.file(path, file, head(path, &metadata))
        } else {
            // A socket, a pipe or a device took its place.
            Ok(())
        }
    }

    fn small(&mut self, head: Head, content: Vec<u8>) -> Result<(), ArchiveError> {
        let sum = Sum { crc: crc32fast::hash(&content), size: content.len() as u64 };
        self.part(Part { begins: Some(head), content: Content::Ready(content), ends: Some(sum) })
    }

    /// No more of a file than it had at first: one that grows all the time would never end.
    fn file(&mut self, path: &Path, mut file: File, mut head: Head) -> Result<(), ArchiveError> {
        let mut left = head.size;
        head.deflated = self.level > 0 && left > 0;
        let deflated = head.deflated;
        let (mut crc, mut size, mut begins) = (crc32fast::Hasher::new(), 0, Some(head));
        loop {
            let wanted = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let mut block = self.blocks.buffer();
            read(&mut file, wanted, &mut block).map_err(|source| ArchiveError::File { path: path.into(), source })?;
            left -= block.len() as u64;
            let last = left == 0 || block.len() < wanted;
            crc.update(&block);
            size += block.len() as u64;
            let content = match deflated {
                true => Content::Coming(self.blocks.add(block, last)),
                false => Content::Ready(block),
            };
            let ends = last.then(|| Sum { crc: crc.clone().finalize(), size });
            self.part(Part { begins: begins.take(), content, ends })?;
            if last {
                return Ok(());
            }
        }
    }

    fn part(&mut self, part: Part) -> Result<(), ArchiveError> {
        self.parts.push_back(part);
        match self.parts.len() > self.most_parts {
            true => self.write_next(),
            false => Ok(()),
        }
    }

    fn write_next(&mut self) -> Result<(), ArchiveError> {
        let Some(Part { begins, content, ends }) = self.parts.pop_front() else { return Ok(()) };
        let deflated = match content {
            Content::Ready(content) => Deflated::stored(content),
            Content::Coming(content) => {
                content.recv().map_err(|_| ArchiveError::Into(io::Error::other("the compression broke down")))?
            }
        };
        let (zip, content) = (&mut self.zip, &deflated.bytes);
        let written = match (begins, ends) {
            (Some(head), Some(sum)) => zip.entry(head, sum, content),
            (Some(head), None) => zip.begin(head).and_then(|()| zip.data(content)),
            (None, None) => zip.data(content),
            (None, Some(sum)) => zip.data(content).and_then(|()| zip.end(sum)),
        };
        self.blocks.give_back(deflated);
        written.map_err(ArchiveError::Into)
    }

    fn finish(mut self) -> Result<(), ArchiveError> {
        while !self.parts.is_empty() {
            self.write_next()?;
        }
        self.zip.finish().map_err(ArchiveError::Into)
    }
}

fn head(path: &Path, metadata: &Metadata) -> Head {
    Head {
        name: path.as_os_str().as_bytes().to_vec(),
        mode: metadata.mode(),
        modified: metadata.mtime(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        deflated: false,
        size: metadata.len(),
    }
}

/// So many bytes, unless the file ends before.
fn read(file: &mut File, wanted: usize, block: &mut Vec<u8>) -> io::Result<()> {
    block.resize(wanted, 0);
    let mut read = 0;
    while read < wanted {
        match file.read(&mut block[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(read);
    Ok(())
}

/// One member per file, one after the other: each says its own name.
fn gzip(project: &Path, entries: &BTreeSet<PathBuf>, mut into: impl Write) -> Result<(), ArchiveError> {
    for path in entries {
        let (mut file, metadata) = open(project, path)?;
        let name = path.file_name().map_or(&[][..], OsStrExt::as_bytes);
        let mut member = GzBuilder::new()
            .filename(name)
            .comment(comment(path))
            .mtime(u32::try_from(metadata.mtime()).unwrap_or(0))
            .write(&mut into, Compression::default());
        copy(path, &mut file, &mut member)?;
        member.finish().map_err(ArchiveError::Into)?;
    }
    into.flush().map_err(ArchiveError::Into)
}

/// The path; percent-encoded behind `e:` where it is not plain ASCII.
fn comment(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.iter().all(|byte| byte.is_ascii() && *byte != b'%') {
        return bytes.to_vec();
    }
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    format!("e:{}", bytes.iter().map(encode).collect::<String>()).into_bytes()
}

fn raw(project: &Path, entries: &BTreeSet<PathBuf>, mut into: impl Write) -> Result<(), ArchiveError> {
    for path in entries {
        let (mut file, _) = open(project, path)?;
        copy(path, &mut file, &mut into)?;
    }
    into.flush().map_err(ArchiveError::Into)
}

/// Tells an unreadable file from a place that takes no more.
fn copy(path: &Path, file: &mut File, into: &mut impl Write) -> Result<(), ArchiveError> {
    let mut block = Vec::new();
    loop {
        read(file, BLOCK, &mut block).map_err(|source| ArchiveError::File { path: path.into(), source })?;
        if block.is_empty() {
            return Ok(());
        }
        into.write_all(&block).map_err(ArchiveError::Into)?;
    }
}

/// Looked at before it is opened: opening a pipe waits for its writer.
fn regular(project: &Path, path: &Path) -> Result<Metadata, ArchiveError> {
    let metadata = fs::symlink_metadata(project.join(path));
    let metadata = metadata.map_err(|source| ArchiveError::File { path: path.into(), source })?;
    if metadata.is_file() { Ok(metadata) } else { Err(ArchiveError::NotRegular(path.into())) }
}

fn open(project: &Path, path: &Path) -> Result<(File, Metadata), ArchiveError> {
    let metadata = regular(project, path)?;
    let file = File::open(project.join(path));
    Ok((file.map_err(|source| ArchiveError::File { path: path.into(), source })?, metadata))
}

fn optional<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, ArchiveError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ArchiveError::File { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::process::Command;

    use flate2::read::{GzDecoder, MultiGzDecoder};

    use super::*;

    fn project(files: &[&str]) -> (tempfile::TempDir, BTreeSet<PathBuf>) {
        let dir = tempfile::tempdir().expect("a directory");
        for file in files {
            fs::write(dir.path().join(file), format!("content of {file}")).expect("a file");
        }
        (dir, files.iter().map(PathBuf::from).collect())
    }

    fn written(format: &str, dir: &Path, entries: &BTreeSet<PathBuf>) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        write(format, dir, entries, DEFAULT_LEVEL, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn gzip_holds_one_named_member_per_file() {
        let (dir, entries) = project(&["a.xml", "ü.xml"]);
        let bytes = written("gzip", dir.path(), &entries).expect("an archive");
        let mut all = String::new();
        MultiGzDecoder::new(&bytes[..]).read_to_string(&mut all).expect("gzip");
        assert_eq!(all, "content of a.xmlcontent of ü.xml");
        let first = GzDecoder::new(&bytes[..]);
        let header = first.header().expect("a header");
        assert_eq!((header.filename(), header.comment()), (Some(&b"a.xml"[..]), Some(&b"a.xml"[..])));
        assert!(header.mtime() > 0);
        assert_eq!(comment(Path::new("d/ü.xml")), b"e:d/%C3%BC.xml");
        assert_eq!(comment(Path::new("100%")), b"e:100%25");
    }

    #[test]
    fn gzip_and_raw_refuse_directories_links_and_pipes() {
        let (dir, _) = project(&["file"]);
        fs::create_dir(dir.path().join("d")).expect("a directory");
        std::os::unix::fs::symlink("file", dir.path().join("link")).expect("a link");
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for (format, name) in [("gzip", "d"), ("raw", "d"), ("gzip", "link"), ("raw", "pipe")] {
            let refused = written(format, dir.path(), &BTreeSet::from([PathBuf::from(name)])).expect_err(name);
            assert_eq!(refused.to_string(), format!("the file {name} is not a regular file"));
        }
    }

    #[test]
    fn raw_is_exactly_one_file() {
        let (dir, entries) = project(&["one"]);
        assert_eq!(written("raw", dir.path(), &entries).expect("a file"), b"content of one");
        let (dir, entries) = project(&["one", "two"]);
        assert!(matches!(written("raw", dir.path(), &entries), Err(ArchiveError::TooManyFiles(2))));
    }

    #[test]
    fn a_format_that_is_not_known_is_refused_by_name() {
        let (dir, entries) = project(&["one"]);
        for format in ["tarzstd", "zipzstd", "7z"] {
            let refused = written(format, dir.path(), &entries).expect_err(format).to_string();
            assert!(refused.contains(format) && refused.contains("zip, gzip and raw"), "{refused}");
        }
        let suffixes = ["", "zip", "gzip", "raw"].map(|format| suffix(format).expect(format));
        assert_eq!(suffixes, [".zip", ".zip", ".gz", ""]);
    }

    #[test]
    fn the_compression_level_has_names() {
        let words = ["fastest", "fast", "", "default", "slow", "slowest", "?"];
        let levels = [Some(0), Some(1), Some(5), Some(5), Some(7), Some(9), None];
        assert_eq!(words.map(compression_level), levels);
    }

    /// What `unzip`, which is somebody else's program, makes of a zip.
    fn unzipped(bytes: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let archive = dir.path().join("archive.zip");
        fs::write(&archive, bytes).expect("a file");
        let output = Command::new("unzip").args(["-q", "-d"]).arg(dir.path().join("x")).arg(&archive).output();
        let output = output.expect("unzip");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        dir
    }

    #[test]
    fn unzip_reads_what_is_written_at_every_level_and_size() {
        let dir = tempfile::tempdir().expect("a directory");
        for size in [0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            let content: Vec<u8> = (0..size).map(|at| (at * at / 7 % 251) as u8).collect();
            fs::write(dir.path().join(size.to_string()), content).expect("a file");
        }
        let entries: BTreeSet<PathBuf> =
            fs::read_dir(dir.path()).expect("it").map(|entry| entry.expect("an entry").file_name().into()).collect();
        for level in [0, 1, 5, 9] {
            let mut bytes = Vec::new();
            write("zip", dir.path(), &entries, level, &mut bytes).expect("an archive");
            let out = unzipped(&bytes);
            for name in &entries {
                let (before, after) = (fs::read(dir.path().join(name)), fs::read(out.path().join("x").join(name)));
                assert!(before.expect("it") == after.expect("it"), "{} at level {level}", name.display());
            }
        }
    }

    #[test]
    fn names_are_kept_byte_by_byte() {
        let (dir, _) = project(&[]);
        let names = [&b"caf\xe9"[..], "ü".as_bytes(), b"a b", b"back\\slash", b"line\nfeed"];
        let entries: BTreeSet<PathBuf> = names.iter().map(|name| PathBuf::from(OsStr::from_bytes(name))).collect();
        for entry in &entries {
            fs::write(dir.path().join(entry), "x").expect("a file");
        }
        let bytes = written("zip", dir.path(), &entries).expect("an archive");
        let zip = zip::ZipArchive::new(io::Cursor::new(bytes)).expect("a zip");
        let found: BTreeSet<&[u8]> = zip.file_names_raw().collect();
        assert_eq!(found, names.into_iter().collect());
    }

    #[test]
    fn what_vanished_or_is_no_file_any_more_is_left_out() {
        let (dir, mut entries) = project(&["file"]);
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        entries.extend(["pipe", "vanished"].map(PathBuf::from));
        let bytes = written("zip", dir.path(), &entries).expect("an archive");
        assert_eq!(zip::ZipArchive::new(io::Cursor::new(bytes)).expect("a zip").len(), 1);
    }

    /// Takes a few bytes and then no more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_place_that_takes_no_more_ends_the_work() {
        let (dir, entries) = project(&["one", "two"]);
        fs::write(dir.path().join("one"), vec![7; 10 * BLOCK]).expect("a file");
        for format in ["zip", "gzip"] {
            let error = write(format, dir.path(), &entries, 5, Full(50)).expect_err(format);
            assert!(matches!(error, ArchiveError::Into(_)), "{error}");
        }
    }
}
