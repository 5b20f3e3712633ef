//! Writing an artifact: zip, gzip or raw (protocol 5.3).

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use zip::result::ZipResult;
use zip::write::FullFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Id of zip's extra field with Unix times.
const EXTENDED_TIMESTAMP: u16 = 0x5455;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {source}", path = path.display())]
    Zip { path: PathBuf, source: zip::result::ZipError },
    #[error("{path} is not a regular file", path = .0.display())]
    NotRegular(PathBuf),
    #[error("only one file can be uploaded in the raw format, and {0} match")]
    TooManyFiles(usize),
    #[error("the artifact format {0:?} is not known")]
    Format(String),
}

/// `ARTIFACT_COMPRESSION_LEVEL`; `None` stores the files as they are.
pub fn compression_level(word: &str) -> Option<i64> {
    match word {
        "fastest" => None,
        "fast" => Some(1),
        "slow" => Some(7),
        "slowest" => Some(9),
        _ => Some(5),
    }
}

/// The suffix that GitLab expects at the name of an upload; `None` for a format that is not written.
pub fn suffix(format: &str) -> Option<&'static str> {
    match format {
        "" | "zip" => Some(".zip"),
        "gzip" => Some(".gz"),
        "raw" => Some(""),
        _ => None,
    }
}

/// Writes the entries, which are relative to `project`, into `into`.
pub fn write(
    format: &str,
    project: &Path,
    entries: &BTreeSet<PathBuf>,
    level: Option<i64>,
    into: File,
) -> Result<(), ArchiveError> {
    match format {
        "" | "zip" => zip(project, entries, level, into),
        "gzip" => gzip(project, entries, into),
        "raw" => raw(project, entries, into),
        _ => Err(ArchiveError::Format(format.into())),
    }
}

fn zip(project: &Path, entries: &BTreeSet<PathBuf>, level: Option<i64>, into: File) -> Result<(), ArchiveError> {
    let mut writer = ZipWriter::new(BufWriter::new(into));
    for path in entries {
        // Something that vanished since it was selected is no error: scripts' leftovers come and go.
        let Some(metadata) = optional(path, fs::symlink_metadata(project.join(path)))? else { continue };
        add(&mut writer, project, path, &metadata, level)?;
    }
    let zip_error = |source| ArchiveError::Zip { path: "the archive".into(), source };
    let mut file = writer.finish().map_err(zip_error)?;
    file.flush().map_err(|source| ArchiveError::File { path: "the archive".into(), source })
}

fn add(
    writer: &mut ZipWriter<BufWriter<File>>,
    project: &Path,
    path: &Path,
    metadata: &Metadata,
    level: Option<i64>,
) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::Zip { path: path.into(), source };
    let name = path.to_string_lossy();
    let options = options(metadata, level).map_err(failed)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        writer.add_directory(name, options).map_err(failed)
    } else if kind.is_symlink() {
        let Some(target) = optional(path, fs::read_link(project.join(path)))? else { return Ok(()) };
        writer.add_symlink(name, target.to_string_lossy(), options).map_err(failed)
    } else if kind.is_file() {
        let Some(mut file) = optional(path, File::open(project.join(path)))? else { return Ok(()) };
        writer.start_file(name, options.large_file(metadata.len() >= u64::from(u32::MAX))).map_err(failed)?;
        io::copy(&mut file, writer).map_err(|source| ArchiveError::File { path: path.into(), source })?;
        Ok(())
    } else {
        // Sockets, pipes and devices cannot be archived.
        Ok(())
    }
}

fn options(metadata: &Metadata, level: Option<i64>) -> ZipResult<FullFileOptions<'static, 'static>> {
    let modified = metadata.mtime();
    let method = if level.is_some() { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let mut options = FullFileOptions::default()
        .compression_method(method)
        .compression_level(level)
        .unix_permissions(metadata.permissions().mode())
        .last_modified_time(msdos_time(modified));
    // Flag 1: the modification time is present. Zip's own time has two-second steps and no time zone.
    if let Ok(modified) = i32::try_from(modified) {
        let mut field = vec![1];
        field.extend(modified.to_le_bytes());
        options.add_extra_field(EXTENDED_TIMESTAMP, field, false)?;
    }
    Ok(options)
}

fn msdos_time(unix: i64) -> DateTime {
    let time = Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    let part = |value: i8| value.unsigned_abs();
    DateTime::from_date_and_time(
        time.year().unsigned_abs(),
        part(time.month()),
        part(time.day()),
        part(time.hour()),
        part(time.minute()),
        part(time.second()),
    )
    .unwrap_or_default()
}

/// One member per file, one after the other: each says its own name.
fn gzip(project: &Path, entries: &BTreeSet<PathBuf>, into: File) -> Result<(), ArchiveError> {
    let mut into = BufWriter::new(into);
    for path in entries {
        let (mut file, metadata) = open_regular(project, path)?;
        let failed = |source| ArchiveError::File { path: path.clone(), source };
        let name = path.file_name().map_or(&[][..], OsStrExt::as_bytes);
        let mut member = GzBuilder::new()
            .filename(name)
            .comment(comment(path))
            .mtime(u32::try_from(metadata.mtime()).unwrap_or(0))
            .write(&mut into, Compression::default());
        io::copy(&mut file, &mut member).map_err(failed)?;
        member.finish().map_err(failed)?;
    }
    into.flush().map_err(|source| ArchiveError::File { path: "the archive".into(), source })
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

fn raw(project: &Path, entries: &BTreeSet<PathBuf>, mut into: File) -> Result<(), ArchiveError> {
    if entries.len() > 1 {
        return Err(ArchiveError::TooManyFiles(entries.len()));
    }
    for path in entries {
        let (mut file, _) = open_regular(project, path)?;
        io::copy(&mut file, &mut into).map_err(|source| ArchiveError::File { path: path.clone(), source })?;
    }
    Ok(())
}

fn open_regular(project: &Path, path: &Path) -> Result<(File, Metadata), ArchiveError> {
    let whole = project.join(path);
    let failed = |source| ArchiveError::File { path: path.into(), source };
    // Looked at before it is opened: opening a pipe waits for its writer.
    let metadata = fs::symlink_metadata(&whole).map_err(failed)?;
    if !metadata.is_file() {
        return Err(ArchiveError::NotRegular(path.into()));
    }
    Ok((File::open(whole).map_err(failed)?, metadata))
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
    use std::io::Read;

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
        let mut file = tempfile::tempfile().expect("a file");
        write(format, dir, entries, Some(5), file.try_clone().expect("the same file"))?;
        io::Seek::rewind(&mut file).expect("a file on disk");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("a file on disk");
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
    }

    #[test]
    fn gzip_and_raw_refuse_directories() {
        let (dir, _) = project(&[]);
        fs::create_dir(dir.path().join("d")).expect("a directory");
        let entries = BTreeSet::from([PathBuf::from("d")]);
        for format in ["gzip", "raw"] {
            let refused = written(format, dir.path(), &entries).expect_err(format);
            assert!(matches!(refused, ArchiveError::NotRegular(_)), "{refused}");
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
        assert!(written("tarzstd", dir.path(), &entries).expect_err("no tar").to_string().contains("tarzstd"));
        assert_eq!(
            (suffix(""), suffix("gzip"), suffix("raw"), suffix("zipzstd")),
            (Some(".zip"), Some(".gz"), Some(""), None)
        );
    }

    #[test]
    fn the_compression_level_has_names() {
        assert_eq!(
            ["fastest", "fast", "default", "slow", "slowest", "?"].map(compression_level).map(|l| l.unwrap_or(0)),
            [0, 1, 5, 7, 9, 5]
        );
    }
}
