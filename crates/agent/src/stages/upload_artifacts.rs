//! `upload_artifacts_on_success` and `_on_failure` (protocol 5.1 to 5.3).
//!
//! `artifacts:access` and `artifacts:public` are no business of a runner: GitLab knows them from the job itself.
//! `expire_in` and the type are passed on as they come.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gitlab::{ArtifactUpload, Content};
use jiff::Timestamp;
use job::ids::ShortToken;
use job::payload::Artifact;
use job::secret::ExposeSecret;
use job::trace::line;
use job::variables::parse_bool;
use tokio::sync::mpsc;

use super::Failure;
use super::packing::{LIMITS, expanded, untracked};
use super::provenance::{provenance, statement};
use crate::archive::in_words;
use crate::archive::select::{Selection, Wanted, select};
use crate::archive::write::{ArchiveError, DEFAULT_LEVEL, check, compression_level, suffix, write};
use crate::run::Run;
use crate::workspace::{Environment, variable};

/// One part of an archive on its way, and how many of them may wait: all of the memory that an upload takes beside packing.
const PART: usize = 64 * 1024;
const WAITING_PARTS: usize = 8;

/// `status` is the `CI_JOB_STATUS` that the script left.
pub async fn run(run: &Run, succeeded: bool, status: &str) -> Result<(), Failure> {
    let has_files = |artifact: &&Artifact| artifact.untracked || !artifact.paths.is_empty();
    let applies = |artifact: &&Artifact| artifact.when.applies(succeeded);
    let wanted: Vec<_> = run.payload.artifacts.iter().filter(applies).filter(has_files).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (name, title) = match succeeded {
        true => ("upload_artifacts_on_success", "Uploading artifacts for successful job"),
        false => ("upload_artifacts_on_failure", "Uploading artifacts for failed job"),
    };
    run.section(name, title, upload_all(run, &wanted, status)).await
}

async fn upload_all(run: &Run, wanted: &[&Artifact], status: &str) -> Result<(), Failure> {
    let environment = run
        .workspace
        .environment(&run.variables, status)
        .map_err(|error| Failure::system(format!("cannot write the stage's files: {error}")))?;
    for artifact in wanted {
        run.say(&line::info("Uploading artifacts..."));
        let upload = Upload { run, artifact, environment: &environment };
        upload.run().await?;
    }
    Ok(())
}

/// One artifact on its way.
struct Upload<'a> {
    run: &'a Run,
    artifact: &'a Artifact,
    environment: &'a Environment,
}

impl Upload<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let Self { run, artifact, .. } = *self;
        let suffix = suffix(&artifact.artifact_format).map_err(|error| run.helper_failed(&error.to_string()))?;
        let base = match artifact.name.as_str() {
            "" => "artifacts".to_owned(),
            _ => base_name(&self.expanded("name", slice::from_ref(&artifact.name)).await?.concat()),
        };
        let mut selection = self.select().await?;
        selection.notes.iter().for_each(|note| run.tell(note));
        if !selection.entries.is_empty() {
            self.add_provenance(&base, &mut selection.entries).await?;
            return self.send(&(base + suffix), selection.entries).await;
        }
        run.say(&line::error("No files to upload"));
        Ok(())
    }

    async fn expanded(&self, what: &str, texts: &[String]) -> Result<Vec<String>, Failure> {
        expanded(self.run, self.environment, LIMITS, &format!("artifact {what}"), texts).await
    }

    async fn select(&self) -> Result<Selection, Failure> {
        let Self { run, artifact, .. } = *self;
        let paths = self.expanded("path", &artifact.paths).await?;
        let exclude = self.expanded("path", &artifact.exclude).await?;
        let untracked = if artifact.untracked { Some(untracked(run, self.environment).await?) } else { None };
        let project = run.workspace.project.clone();
        let selecting = move |_: &AtomicBool| {
            select(&project, &Wanted { paths: &paths, exclude: &exclude, untracked: untracked.as_deref() })
        };
        run.blocking(LIMITS, selecting).await
    }

    /// GitLab's runner does this for exactly the format `zip`, too.
    async fn add_provenance(&self, base: &str, entries: &mut BTreeSet<PathBuf>) -> Result<(), Failure> {
        let Self { run, artifact, .. } = *self;
        let asked = variable(self.environment, "RUNNER_GENERATE_ARTIFACTS_METADATA").and_then(|text| parse_bool(&text));
        if artifact.artifact_format != "zip" || asked != Some(true) {
            return Ok(());
        }
        run.say("Generating artifacts statement\n");
        let provenance =
            provenance(&run.payload, &run.variables, &run.runner.name, &format!("{:.0}", Timestamp::now()));
        let (project, of) = (run.workspace.project.clone(), entries.clone());
        let name = PathBuf::from(format!("{base}-metadata.json"));
        let file = name.clone();
        let making = move |abandoned: &AtomicBool| {
            let statement = statement(&project, &of, &provenance, abandoned)?;
            std::fs::write(project.join(&file), format!("{statement:#}")).map_err(|error| (file, error))
        };
        let made = run.blocking(LIMITS, making).await?;
        made.map_err(|(path, error)| run.helper_failed(&format!("{}: {}", path.display(), in_words(&error))))?;
        entries.insert(name);
        Ok(())
    }

    async fn send(&self, name: &str, entries: BTreeSet<PathBuf>) -> Result<(), Failure> {
        let Self { run, artifact, .. } = *self;
        let word = variable(self.environment, "ARTIFACT_COMPRESSION_LEVEL").unwrap_or_default();
        let level = compression_level(&word).unwrap_or_else(|| {
            run.say(&line::warning(&format!("compression level {word:?} is invalid, falling back to default")));
            DEFAULT_LEVEL
        });
        let packing = Arc::new(Packing {
            format: artifact.artifact_format.clone(),
            project: run.workspace.project.clone(),
            entries,
            level,
        });
        let checked = packing.clone();
        let checking = move |_: &AtomicBool| check(&checked.format, &checked.project, &checked.entries);
        let checked = run.blocking(LIMITS, checking).await?;
        checked.map_err(|error| run.helper_failed(&error.to_string()))?;

        let kind = if artifact.artifact_type.is_empty() { "archive" } else { &artifact.artifact_type };
        let report = format!("Uploading artifacts as \"{kind}\" to coordinator...");
        let (id, token) = (run.payload.id, ShortToken::of(run.payload.token.expose_secret()));
        let upload = ArtifactUpload {
            name,
            artifact_type: &artifact.artifact_type,
            format: &artifact.artifact_format,
            expire_in: &artifact.expire_in,
            content: &|| packed(packing.clone()),
            timeout: Duration::from_secs(run.runner.artifact_upload_timeout),
            header_timeout: Duration::from_secs(run.runner.artifact_response_header_timeout),
            failed_try: &|reason| {
                run.say(&line::warning(&format!("{report} {reason}  id={id} token={}", token.as_str())));
                run.say(&line::warning("Retrying...  context=artifacts-uploader"));
            },
        };
        let sending = run.client.upload_artifact(id, &run.payload.token, &upload);
        match run.unless_stopped(LIMITS, sending).await? {
            Ok(()) => {
                let context = format!("id={id} responseStatus=201 Created token={}", token.as_str());
                run.say(&format!("{report} 201 Created  {context}\n"));
                Ok(())
            }
            Err(error) => Err(run.helper_failed(&format!("{report} {error}  id={id} token={}", token.as_str()))),
        }
    }
}

/// What is packed, as often as it has to be sent.
struct Packing {
    format: String,
    project: PathBuf,
    entries: BTreeSet<PathBuf>,
    level: u32,
}

/// Packs on a thread of its own while the archive is sent. It ends when nobody takes the archive any more.
fn packed(packing: Arc<Packing>) -> Content {
    let (sender, content) = mpsc::channel(WAITING_PARTS);
    tokio::task::spawn_blocking(move || {
        let mut parts = Parts { sender, next: Vec::with_capacity(PART) };
        let Packing { format, project, entries, level } = &*packing;
        let last = match write(format, project, entries, *level, &mut parts).and_then(|()| parts.end()) {
            Ok(()) => Ok(Vec::new()),
            Err(ArchiveError::Into(error)) => Err(error),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        // It matters to nobody if the upload was given up.
        let _ = parts.sender.blocking_send(last);
    });
    content
}

/// Cuts what is written into parts, and waits while too many are on their way.
struct Parts {
    sender: mpsc::Sender<io::Result<Vec<u8>>>,
    next: Vec<u8>,
}

impl Parts {
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::replace(&mut self.next, Vec::with_capacity(PART));
        self.sender.blocking_send(Ok(part)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// An empty part would be the end of the content.
    fn end(&mut self) -> Result<(), ArchiveError> {
        if self.next.is_empty() { Ok(()) } else { self.send().map_err(ArchiveError::Into) }
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.next.extend_from_slice(bytes);
        if self.next.len() >= PART {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last part of the name; `default` if there is none.
fn base_name(name: &str) -> String {
    match name.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | ".") => "default".into(),
        Some(base) => base.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_content_is_cut_into_parts_and_its_end_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let bytes: Vec<u8> = (0..PART * 3 + 17).map(|at| (at % 251) as u8).collect();
        std::fs::write(dir.path().join("file"), &bytes).expect("a file");
        let packing = |format: &str, entry: &str| Packing {
            format: format.into(),
            project: dir.path().into(),
            entries: BTreeSet::from([PathBuf::from(entry)]),
            level: 5,
        };
        let mut content = packed(Arc::new(packing("raw", "file")));
        let mut read = Vec::new();
        loop {
            let part = content.recv().await.expect("not the end").expect("no error");
            if part.is_empty() {
                break;
            }
            read.extend(part);
        }
        assert!(read == bytes && content.recv().await.is_none());
        let broken = packed(Arc::new(packing("raw", "missing"))).recv().await.expect("a part");
        assert!(broken.expect_err("an error").to_string().contains("missing"));
    }

    #[test]
    fn an_artifact_is_called_by_the_last_part_of_its_name() {
        let names = [
            ("", "default"),
            (".", "default"),
            ("/", "default"),
            ("feature/x", "x"),
            ("app-1.0", "app-1.0"),
            ("a/", "a"),
        ];
        for (name, base) in names {
            assert_eq!(base_name(name), base, "{name}");
        }
    }
}
