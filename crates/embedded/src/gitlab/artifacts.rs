//! Artifacts: upload, download, and the object storage that a download may be redirected to (protocol 5).

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Request, State as Extract};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio_util::io::ReaderStream;

use super::answers::{Params, Refusal, header, same_secret};
use super::dotenv;
use super::job::Artifact;
use super::multipart::{self, Upload, UploadError};
use super::state::{Shared, random_word};
use super::view::{ArtifactView, JobId};

/// Type, format and default file name (protocol 5.4); a type in another format is refused.
const TYPES: [(&str, &str, &str); 30] = [
    ("archive", "zip", "artifacts.zip"),
    ("lsif", "zip", "lsif.json"),
    ("junit", "gzip", "junit.xml"),
    ("metrics", "gzip", "metrics.txt"),
    ("metrics_referee", "gzip", "metrics_referee"),
    ("network_referee", "gzip", "network_referee"),
    ("dotenv", "gzip", ".env"),
    ("cobertura", "gzip", "cobertura-coverage.xml"),
    ("jacoco", "gzip", "jacoco-coverage.xml"),
    ("cyclonedx", "gzip", "gl-sbom.cdx.json"),
    ("annotations", "gzip", "gl-annotations.json"),
    ("repository_xray", "gzip", "gl-repository-xray.json"),
    ("cluster_applications", "gzip", "gl-cluster-applications.json"),
    ("sast", "raw", "gl-sast-report.json"),
    ("secret_detection", "raw", "gl-secret-detection-report.json"),
    ("dependency_scanning", "raw", "gl-dependency-scanning-report.json"),
    ("container_scanning", "raw", "gl-container-scanning-report.json"),
    ("cluster_image_scanning", "raw", "gl-cluster-image-scanning-report.json"),
    ("dast", "raw", "gl-dast-report.json"),
    ("license_scanning", "raw", "gl-license-scanning-report.json"),
    ("accessibility", "raw", "gl-accessibility.json"),
    ("codequality", "raw", "gl-code-quality-report.json"),
    ("performance", "raw", "performance.json"),
    ("browser_performance", "raw", "browser-performance.json"),
    ("load_performance", "raw", "load-performance.json"),
    ("terraform", "raw", "tfplan.json"),
    ("requirements", "raw", "requirements.json"),
    ("requirements_v2", "raw", "requirements_v2.json"),
    ("coverage_fuzzing", "raw", "gl-coverage-fuzzing.json"),
    ("api_fuzzing", "raw", "gl-api-fuzzing-report.json"),
];

/// A refused body is still read to its end, up to this size, so that the client reads the answer instead of a reset.
const DRAIN_LIMIT: usize = 1 << 30;

pub(super) fn default_name(kind: &str) -> Option<&'static str> {
    TYPES.iter().find(|(name, ..)| *name == kind).map(|(_, _, file)| *file)
}

pub(super) fn format_of(kind: &str) -> Option<&'static str> {
    TYPES.iter().find(|(name, ..)| *name == kind).map(|(_, format, _)| *format)
}

pub(super) async fn drain(body: &mut BodyDataStream) {
    let mut drained = 0;
    while let Some(Ok(chunk)) = body.next().await {
        drained += chunk.len();
        if drained > DRAIN_LIMIT {
            return;
        }
    }
}

pub(super) async fn upload(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<JobId>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let result = store(&shared, id, &parts.headers, &parts.uri, &mut body).await;
    if result.is_err() {
        drain(&mut body).await;
    }
    result
}

async fn store(
    shared: &Shared,
    id: JobId,
    headers: &HeaderMap,
    uri: &Uri,
    body: &mut BodyDataStream,
) -> Result<Response, Refusal> {
    let query = Params::query(uri)?;
    let token = query.string("token")?.or(header(headers, "job-token").map(str::to_owned));
    shared.change(|state| state.job_on_runner(id, token.as_deref()).map(|_| ()))?;
    let kinds: Vec<&str> = TYPES.iter().map(|(kind, ..)| *kind).chain(["metadata", "trace"]).collect();
    let kind = query.one_of("artifact_type", &kinds)?.unwrap_or_else(|| "archive".into());
    let format = query.one_of("artifact_format", &["raw", "zip", "gzip"])?.unwrap_or_else(|| "zip".into());
    let length = header(headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
    // The frame of the multipart body is far smaller than this.
    if length.is_some_and(|length| length > shared.config.artifact_limit + 64 * 1024) {
        return Err(too_large());
    }
    let boundary = header(headers, CONTENT_TYPE.as_str()).and_then(multipart::boundary);
    let boundary = boundary.ok_or_else(|| Refusal::parameter("file is missing"))?;
    let path = shared.directory.join("artifacts").join(format!("{id}-{}", random_word()));
    let received = multipart::receive(body, boundary, &path, shared.config.artifact_limit).await.map_err(refusal);
    let stored = received.and_then(|upload| {
        let expire_in = query.string("expire_in")?.or_else(|| upload.fields.get("expire_in").cloned());
        accept(shared, id, token.as_deref(), Kind { kind, format, expire_in }, upload, &path)
    });
    if !matches!(stored, Ok(Stored::New)) {
        // Nothing refers to it; if it cannot be removed now, it goes with the server's directory.
        let _ = std::fs::remove_file(&path);
    }
    stored.map(|_| (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], "201").into_response())
}

fn too_large() -> Refusal {
    Refusal::message(StatusCode::PAYLOAD_TOO_LARGE, "file size has reached maximum size limit")
}

fn refusal(error: UploadError) -> Refusal {
    match error {
        UploadError::TooLarge => too_large(),
        UploadError::Disk(error) => Refusal::disk(&error),
        UploadError::Malformed(_) | UploadError::NoFile | UploadError::Connection(_) => {
            Refusal::parameter(error.to_string())
        }
    }
}

struct Kind {
    kind: String,
    format: String,
    expire_in: Option<String>,
}

enum Stored {
    New,
    /// The same bytes were there already: a repeated upload.
    Known,
}

fn accept(
    shared: &Shared,
    id: JobId,
    token: Option<&str>,
    Kind { kind, format, expire_in }: Kind,
    upload: Upload,
    path: &FilePath,
) -> Result<Stored, Refusal> {
    let bad = |why: &str| Refusal::message(StatusCode::BAD_REQUEST, why);
    shared.change(|state| {
        let job = state.job_on_runner(id, token)?;
        if let Some(existing) = job.artifacts.iter().find(|artifact| artifact.view.kind == kind) {
            return match existing.sha256 == upload.sha256 {
                true => Ok(Stored::Known),
                false => Err(bad("another artifact of the same type already exists")),
            };
        }
        if format_of(&kind) != Some(format.as_str()) {
            return Err(bad("Validation failed: File format Invalid file format with specified file type"));
        }
        if kind == "dotenv" {
            let file = std::fs::File::open(path).map_err(|error| Refusal::disk(&error))?;
            job.dotenv = dotenv::read(file).map_err(|error| bad(&error.to_string()))?;
        }
        let filename = sanitized(&upload.filename);
        let view = ArtifactView { kind, format, filename, size: upload.size, expire_in, path: path.to_owned() };
        job.artifacts.push(Artifact { view, sha256: upload.sha256, signature: random_word() });
        Ok(Stored::New)
    })
}

/// The base name with nothing in it that could mean something to a file system or a header.
fn sanitized(filename: &str) -> String {
    let base = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    base.chars().map(|c| if c.is_ascii_alphanumeric() || ".-+_".contains(c) { c } else { '_' }).collect()
}

/// `GET jobs/:id/artifacts`, with the token of that job or of one that runs now.
pub(super) async fn download(
    Extract(shared): Extract<Arc<Shared>>,
    Path(id): Path<JobId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let query = Params::query(&uri)?;
    let direct = query.boolean("direct_download")?.unwrap_or(false);
    let token = query.string("token")?.or(header(&headers, "job-token").map(str::to_owned)).unwrap_or_default();
    let (archive, signature) = shared.look(|state| {
        let job = state.jobs.get(&id).ok_or_else(Refusal::forbidden)?;
        let running = || state.jobs.values().any(|job| job.status.is_on_runner() && same_secret(&token, &job.token));
        if !same_secret(&token, &job.token) && !running() {
            return Err(Refusal::forbidden());
        }
        let archive = job.artifacts.iter().find(|artifact| artifact.view.kind == "archive");
        let archive = archive.ok_or_else(|| Refusal::not_found("File"))?;
        Ok((archive.view.clone(), archive.signature.clone()))
    })?;
    match &shared.storage_url {
        Some(storage) if direct => {
            let location = format!("{storage}/artifacts/{id}/{}?X-Amz-Signature={signature}", archive.filename);
            Ok((StatusCode::FOUND, [(LOCATION, location)]).into_response())
        }
        _ => send(archive.path, &archive.filename).await,
    }
}

/// The object storage: whoever has the signature gets the file.
pub(super) async fn fetch(
    Extract(shared): Extract<Arc<Shared>>,
    Path((id, filename)): Path<(JobId, String)>,
    uri: Uri,
) -> Response {
    let signature = Params::query(&uri).and_then(|query| query.string("X-Amz-Signature")).ok().flatten();
    let archive = shared.look(|state| {
        let artifact = state.jobs.get(&id)?.artifacts.iter().find(|artifact| artifact.view.kind == "archive")?;
        same_secret(signature.as_deref().unwrap_or_default(), &artifact.signature).then(|| artifact.view.clone())
    });
    match archive {
        Some(archive) if archive.filename == filename => match send(archive.path, &filename).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        },
        _ => {
            let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
                       <Message>The request signature does not match</Message></Error>";
            (StatusCode::FORBIDDEN, [(CONTENT_TYPE, "application/xml")], xml).into_response()
        }
    }
}

async fn send(path: PathBuf, filename: &str) -> Result<Response, Refusal> {
    let file = tokio::fs::File::open(&path).await.map_err(|error| Refusal::disk(&error))?;
    let length = file.metadata().await.map_err(|error| Refusal::disk(&error))?.len();
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{filename}\"")),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}
