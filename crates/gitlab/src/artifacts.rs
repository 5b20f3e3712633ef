//! Artifacts up (5.1) and down (5.5).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt;
use job::ids::JobId;
use job::secret::SecretString;
use reqwest::header::LOCATION;
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::client::{Client, JOB_TOKEN, complaint, describe, header, is_page, sensitive};

const LONGEST_UPLOAD_PAUSE: Duration = Duration::from_secs(5);
const DOWNLOAD_TRIES: u32 = 3;
const MOST_REDIRECTS: u32 = 10;

/// One archive or report on its way to GitLab (5.1).
#[derive(Debug, Clone)]
pub struct ArtifactUpload<'a> {
    /// The file name that GitLab shows, with its suffix.
    pub name: &'a str,
    /// `artifact_type` of the payload, e.g. `archive`; left out if empty, like the next two.
    pub artifact_type: &'a str,
    pub format: &'a str,
    pub expire_in: &'a str,
    pub file: &'a Path,
}

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("GitLab does not accept the artifact: {0}")]
    Forbidden(String),
    #[error("too large archive")]
    TooLarge,
    #[error("cannot read the archive: {0}")]
    File(#[source] io::Error),
    /// After all tries.
    #[error("{0}")]
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// 401, 403.
    #[error("GitLab does not hand out the artifacts: {0}")]
    Forbidden(String),
    /// 404: expired or deleted.
    #[error("the artifacts do not exist any more")]
    NotFound,
    #[error("cannot write the archive: {0}")]
    File(#[source] io::Error),
    /// After all tries.
    #[error("{0}")]
    Failed(String),
}

/// One try that may be worth another.
enum Try<E> {
    Failed { reason: String, tries: u32 },
    Hopeless(E),
}

impl Client {
    /// Streams the file to GitLab, with the tries of 5.1.
    pub async fn upload_artifact(
        &self,
        job: JobId,
        token: &SecretString,
        upload: &ArtifactUpload<'_>,
    ) -> Result<(), UploadError> {
        let mut url = self.url(&format!("jobs/{job}/artifacts"));
        let parameters = [
            ("artifact_format", upload.format),
            ("artifact_type", upload.artifact_type),
            ("expire_in", upload.expire_in),
        ];
        let given: Vec<_> = parameters.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        if !given.is_empty() {
            url.query_pairs_mut().extend_pairs(given);
        }
        let mut pause = Duration::from_secs(1);
        for made in 1.. {
            match self.try_upload(&mut url, token, upload).await {
                Ok(()) => break,
                Err(Try::Hopeless(error)) => return Err(error),
                Err(Try::Failed { reason, tries }) if made >= tries => return Err(UploadError::Failed(reason)),
                Err(Try::Failed { reason, .. }) => tracing::warn!(%job, reason, "uploading the artifacts again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_UPLOAD_PAUSE);
        }
        Ok(())
    }

    /// A 307 moves `url` to another host for the tries to come.
    async fn try_upload(
        &self,
        url: &mut Url,
        token: &SecretString,
        upload: &ArtifactUpload<'_>,
    ) -> Result<(), Try<UploadError>> {
        let length =
            tokio::fs::metadata(upload.file).await.map_err(|error| Try::Hopeless(UploadError::File(error)))?.len();
        let complete = |request: reqwest::RequestBuilder| {
            let part = Part::stream_with_length(file_body(upload.file.to_owned()), length)
                .file_name(upload.name.to_owned())
                .mime_str("application/octet-stream")
                .expect("a well-formed media type");
            request.header(JOB_TOKEN, sensitive(token)).multipart(Form::new().part("file", part))
        };
        let answer = match self.send(Method::POST, url.clone(), complete).await {
            Ok(answer) => answer,
            Err(error) => return Err(Try::Failed { reason: error.to_string(), tries: 3 }),
        };
        let response = answer.response;
        match response.status() {
            StatusCode::CREATED if !is_page(response.headers()) => Ok(()),
            StatusCode::TEMPORARY_REDIRECT => match location(&response) {
                Some(target) => {
                    let mut moved = target;
                    moved.set_path(url.path());
                    moved.set_query(url.query());
                    *url = moved;
                    Err(Try::Failed { reason: "GitLab moves the upload to another host".into(), tries: 3 })
                }
                None => Err(Try::Hopeless(UploadError::Failed("GitLab redirects the upload to nowhere".into()))),
            },
            StatusCode::FORBIDDEN => Err(Try::Hopeless(UploadError::Forbidden(complaint(response).await))),
            StatusCode::PAYLOAD_TOO_LARGE => Err(Try::Hopeless(UploadError::TooLarge)),
            status => {
                let tries = if status == StatusCode::SERVICE_UNAVAILABLE { 6 } else { 3 };
                let reason = format!("GitLab answered {}: {}", status.as_u16(), complaint(response).await);
                Err(Try::Failed { reason, tries })
            }
        }
    }

    /// Streams the archive of a dependency into the file `into`, which is created or emptied; returns its bytes.
    pub async fn download_artifacts(
        &self,
        dependency: JobId,
        token: &SecretString,
        into: &Path,
    ) -> Result<u64, DownloadError> {
        for made in 1.. {
            let mut url = self.url(&format!("jobs/{dependency}/artifacts"));
            // An object store that cannot be reached from here is only tried once.
            if made == 1 {
                url.set_query(Some("direct_download=true"));
            }
            match self.try_download(url, token, into).await {
                Ok(bytes) => return Ok(bytes),
                Err(Try::Hopeless(error)) => return Err(error),
                Err(Try::Failed { reason, tries }) if made >= tries => return Err(DownloadError::Failed(reason)),
                Err(Try::Failed { reason, .. }) => tracing::warn!(%dependency, reason, "downloading artifacts again"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        unreachable!("the loop has no end of its own")
    }

    async fn try_download(&self, mut url: Url, token: &SecretString, into: &Path) -> Result<u64, Try<DownloadError>> {
        let failed = |reason: String| Try::Failed { reason, tries: DOWNLOAD_TRIES };
        // The token is GitLab's alone: it is dropped at the first step to another host, and for good.
        let mut at_gitlab = true;
        for _ in 0..MOST_REDIRECTS {
            at_gitlab &= url.origin() == self.base().origin();
            let complete = |request: reqwest::RequestBuilder| match at_gitlab {
                true => request.header(JOB_TOKEN, sensitive(token)),
                false => request,
            };
            let answer = self.send(Method::GET, url.clone(), complete).await;
            let response = answer.map_err(|error| failed(error.to_string()))?.response;
            match response.status() {
                StatusCode::OK if !is_page(response.headers()) => return save(response, into).await,
                status if status.is_redirection() => {
                    url = location(&response).ok_or_else(|| failed("GitLab redirects to nowhere".into()))?;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(Try::Hopeless(DownloadError::Forbidden(complaint(response).await)));
                }
                StatusCode::NOT_FOUND => return Err(Try::Hopeless(DownloadError::NotFound)),
                status => return Err(failed(format!("{}: {}", status.as_u16(), complaint(response).await))),
            }
        }
        Err(failed("too many redirects".into()))
    }
}

async fn save(mut response: Response, into: &Path) -> Result<u64, Try<DownloadError>> {
    let broken = |error: io::Error| Try::Hopeless(DownloadError::File(error));
    let mut file = File::create(into).await.map_err(broken)?;
    let mut bytes = 0;
    loop {
        let next = response.chunk().await;
        let next = next.map_err(|error| Try::Failed { reason: describe(&error), tries: DOWNLOAD_TRIES })?;
        let Some(chunk) = next else { break };
        file.write_all(&chunk).await.map_err(broken)?;
        bytes += chunk.len() as u64;
    }
    file.flush().await.map_err(broken)?;
    Ok(bytes)
}

/// Opens the file when the body is asked for, so that each attempt reads it from its start.
fn file_body(path: PathBuf) -> Body {
    Body::wrap_stream(futures::stream::once(File::open(path)).map_ok(ReaderStream::new).try_flatten())
}

fn location(response: &Response) -> Option<Url> {
    response.url().join(&header(response.headers(), &LOCATION)?).ok()
}
