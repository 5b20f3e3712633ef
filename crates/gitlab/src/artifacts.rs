//! Artifacts up (5.1) and down (5.5).

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use job::ids::JobId;
use job::secret::SecretString;
use reqwest::header::LOCATION;
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::client::{
    Answer, CallError, Client, JOB_TOKEN, complaint, describe, header, is_page, leaves_tls, sensitive,
};

const DOWNLOAD_TRIES: u32 = 3;
const MOST_REDIRECTS: u32 = 10;

/// The parts of a content. An empty one says that it is whole: a channel that closes without ends the upload, as a
/// part that is an error does.
pub type Content = mpsc::Receiver<io::Result<Vec<u8>>>;

/// One archive or report on its way to GitLab (5.1).
#[derive(Clone)]
pub struct ArtifactUpload<'a> {
    /// The file name that GitLab shows, with its suffix.
    pub name: &'a str,
    /// `artifact_type` of the payload, e.g. `archive`; left out if empty, like the next two.
    pub artifact_type: &'a str,
    pub format: &'a str,
    pub expire_in: &'a str,
    /// Makes the content, anew for each try: nothing is kept, neither in memory nor on the disk.
    pub content: &'a (dyn Fn() -> Content + Sync),
    /// For one try with all of its body.
    pub timeout: Duration,
    /// From the end of the body to the answer.
    pub header_timeout: Duration,
    /// Hears of each try after which there is another one.
    pub failed_try: &'a (dyn Fn(&str) + Sync),
}

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("{0}")]
    Forbidden(String),
    #[error("too large: {0}")]
    TooLarge(String),
    /// The content could not be made; GitLab has not seen the whole of it.
    #[error("{0}")]
    Content(#[source] io::Error),
    /// After all tries.
    #[error("{0}")]
    Failed(String),
}

/// What GitLab handed out.
#[derive(Debug, PartialEq, Eq)]
pub struct Downloaded {
    pub bytes: u64,
    /// Where it came from: GitLab, or the object store behind it.
    pub host: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// 401.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// 403.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// 404: expired or deleted.
    #[error("not found")]
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

/// How often an upload is tried whose last try was answered so; `None` is no answer at all.
fn upload_tries(status: Option<StatusCode>) -> u32 {
    match status {
        Some(StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE) => 1,
        Some(StatusCode::SERVICE_UNAVAILABLE) => 6,
        _ => 3,
    }
}

/// How long to wait after so many tries of an upload: doubling from one second to five.
fn upload_pause(made: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(made - 1).min(5))
}

impl Client {
    /// Streams the content to GitLab, with the tries of 5.1.
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
        for made in 1.. {
            match self.try_upload(&mut url, token, upload).await {
                Ok(()) => break,
                Err(Try::Hopeless(error)) => return Err(error),
                Err(Try::Failed { reason, tries }) if made >= tries => return Err(UploadError::Failed(reason)),
                Err(Try::Failed { reason, .. }) => (upload.failed_try)(&reason),
            }
            tokio::time::sleep(upload_pause(made)).await;
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
        let (sent, at) = watch::channel(None);
        let progress = Arc::new(Progress { sent, broken: Mutex::new(None) });
        let complete = |request: RequestBuilder| {
            let part = Part::stream(body((upload.content)(), progress.clone()))
                .file_name(upload.name.to_owned())
                .mime_str("application/octet-stream")
                .expect("a well-formed media type");
            let request = request.header(JOB_TOKEN, sensitive(token)).timeout(upload.timeout);
            request.multipart(Form::new().part("file", part))
        };
        let answer = tokio::select! {
            answer = self.send_large(Method::POST, url.clone(), complete) => answer.map_err(|error| error.to_string()),
            () = too_late(at, upload.header_timeout) => {
                Err(format!("GitLab did not answer within {} s", upload.header_timeout.as_secs()))
            }
        };
        if let Some(error) = progress.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The next try would end in the same way.
            return Err(Try::Hopeless(UploadError::Content(error)));
        }
        let response = match answer {
            Ok(Answer { response, .. }) => response,
            Err(reason) => return Err(Try::Failed { reason, tries: upload_tries(None) }),
        };
        let status = response.status();
        match status {
            StatusCode::CREATED if !is_page(response.headers()) => Ok(()),
            StatusCode::TEMPORARY_REDIRECT => match location(&response) {
                // The job's token and files would be open to everybody on the way.
                Some(target) if leaves_tls(url, &target) => {
                    let reason = format!("{status}: GitLab moves the upload from https to http");
                    Err(Try::Hopeless(UploadError::Failed(reason)))
                }
                Some(mut target) => {
                    target.set_path(url.path());
                    target.set_query(url.query());
                    *url = target;
                    let reason = format!("{status}: GitLab moves the upload to another host");
                    Err(Try::Failed { reason, tries: upload_tries(Some(status)) })
                }
                None => Err(Try::Hopeless(UploadError::Failed(format!("{status}, but GitLab does not say where to")))),
            },
            StatusCode::FORBIDDEN => Err(Try::Hopeless(UploadError::Forbidden(answered(response).await))),
            StatusCode::PAYLOAD_TOO_LARGE => Err(Try::Hopeless(UploadError::TooLarge(answered(response).await))),
            status => Err(Try::Failed { reason: answered(response).await, tries: upload_tries(Some(status)) }),
        }
    }

    /// Streams the archive of a dependency into the file `into`, which is created or emptied. With `direct` the first try
    /// may be sent on to the object store behind GitLab: one that cannot be reached from here is only tried once.
    pub async fn download_artifacts(
        &self,
        dependency: JobId,
        token: &SecretString,
        direct: bool,
        into: &Path,
        failed_try: &(dyn Fn(&str) + Sync),
    ) -> Result<Downloaded, DownloadError> {
        for made in 1.. {
            let mut url = self.url(&format!("jobs/{dependency}/artifacts"));
            if direct && made == 1 {
                url.set_query(Some("direct_download=true"));
            }
            match self.try_download(url, token, into).await {
                Ok(downloaded) => return Ok(downloaded),
                Err(Try::Hopeless(error)) => return Err(error),
                Err(Try::Failed { reason, tries }) if made >= tries => return Err(DownloadError::Failed(reason)),
                Err(Try::Failed { reason, .. }) => failed_try(&reason),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        unreachable!("the loop has no end of its own")
    }

    async fn try_download(
        &self,
        mut url: Url,
        token: &SecretString,
        into: &Path,
    ) -> Result<Downloaded, Try<DownloadError>> {
        let failed = |reason: String| Try::Failed { reason, tries: DOWNLOAD_TRIES };
        // The token is GitLab's alone: it is dropped at the first step to another host, and for good.
        let mut at_gitlab = true;
        for _ in 0..MOST_REDIRECTS {
            at_gitlab &= url.origin() == self.base().origin();
            let complete = |request: RequestBuilder| match at_gitlab {
                true => request.header(JOB_TOKEN, sensitive(token)),
                false => request,
            };
            let answer = self.send(Method::GET, url.clone(), complete).await;
            let response = match answer {
                Ok(answer) => answer.response,
                Err(CallError::Unreachable(reason)) if !at_gitlab => {
                    return Err(failed(format!("cannot reach the store of GitLab's artifacts: {reason}")));
                }
                Err(error) => return Err(failed(error.to_string())),
            };
            match response.status() {
                StatusCode::OK if !is_page(response.headers()) => return save(response, into).await,
                status if status.is_redirection() => {
                    url = location(&response).ok_or_else(|| failed(format!("{status} to nowhere")))?;
                }
                StatusCode::UNAUTHORIZED => {
                    return Err(Try::Hopeless(DownloadError::Unauthorized(complaint(response).await)));
                }
                StatusCode::FORBIDDEN => {
                    return Err(Try::Hopeless(DownloadError::Forbidden(complaint(response).await)));
                }
                StatusCode::NOT_FOUND => return Err(Try::Hopeless(DownloadError::NotFound)),
                _ => return Err(failed(answered(response).await)),
            }
        }
        Err(failed("too many redirects".into()))
    }
}

/// The status, and what the answer says beyond it.
async fn answered(response: Response) -> String {
    let status = response.status().to_string();
    let message = complaint(response).await;
    if message == status { status } else { format!("{status}: {message}") }
}

/// What is known of a body on its way.
struct Progress {
    /// When the last byte was given away.
    sent: watch::Sender<Option<Instant>>,
    broken: Mutex<Option<io::Error>>,
}

fn body(content: Content, progress: Arc<Progress>) -> Body {
    progress.sent.send_replace(None);
    Body::wrap_stream(stream::try_unfold((content, progress), |(mut content, progress)| async move {
        match content.recv().await {
            Some(Ok(part)) if part.is_empty() => {
                progress.sent.send_replace(Some(Instant::now()));
                Ok(None)
            }
            Some(Ok(part)) => Ok(Some((Bytes::from(part), (content, progress)))),
            ended => {
                let error = ended.and_then(Result::err).unwrap_or_else(|| io::Error::other("the content is not whole"));
                let told = io::Error::from(error.kind());
                *progress.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(told)
            }
        }
    }))
}

/// Returns when a body that was sent whole is not answered in time.
async fn too_late(mut sent: watch::Receiver<Option<Instant>>, patience: Duration) {
    loop {
        let at = *sent.borrow_and_update();
        let waiting = async {
            match at {
                Some(at) => tokio::time::sleep_until(at + patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = waiting => return,
            // Another attempt begins, or this one ends.
            changed = sent.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
    }
}

async fn save(mut response: Response, into: &Path) -> Result<Downloaded, Try<DownloadError>> {
    let broken = |error: io::Error| Try::Hopeless(DownloadError::File(error));
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let mut file = BufWriter::with_capacity(256 * 1024, File::create(into).await.map_err(broken)?);
    let mut bytes = 0;
    loop {
        let next = response.chunk().await;
        let next = next.map_err(|error| Try::Failed { reason: describe(error), tries: DOWNLOAD_TRIES })?;
        let Some(chunk) = next else { break };
        file.write_all(&chunk).await.map_err(broken)?;
        bytes += chunk.len() as u64;
    }
    file.flush().await.map_err(broken)?;
    Ok(Downloaded { bytes, host })
}

fn location(response: &Response) -> Option<Url> {
    response.url().join(&header(response.headers(), &LOCATION)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_tried_as_often_as_gitlabs_answer_allows() {
        let statuses = [403, 413, 503, 307, 400, 401, 404, 408, 422, 500, 502].map(StatusCode::from_u16);
        let tries = statuses.map(|status| upload_tries(status.ok()));
        assert_eq!(tries, [1, 1, 6, 3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!(upload_tries(None), 3);
    }

    #[test]
    fn the_pauses_between_uploads_double_up_to_five_seconds() {
        assert_eq!((1..=6).map(|made| upload_pause(made).as_secs()).collect::<Vec<_>>(), [1, 2, 4, 5, 5, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_an_answer_begins_with_the_end_of_the_body() {
        let (sent, at) = watch::channel(None);
        let began = Instant::now();
        let waiting = tokio::spawn(too_late(at, Duration::from_secs(600)));
        tokio::time::sleep(Duration::from_secs(3000)).await;
        sent.send_replace(Some(Instant::now()));
        tokio::time::sleep(Duration::from_secs(500)).await;
        // The attempt was answered with a 503, and the next one sends its body.
        sent.send_replace(None);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert!(!waiting.is_finished());
        sent.send_replace(Some(Instant::now()));
        waiting.await.expect("the end");
        assert_eq!(began.elapsed().as_secs(), 3000 + 500 + 1000 + 600);
    }
}
