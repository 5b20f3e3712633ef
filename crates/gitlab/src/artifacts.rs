use crate::client::Client;
use job::ids::JobId;
use job::secret::SecretString;
use std::path::Path;

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
    File(#[source] std::io::Error),
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
    File(#[source] std::io::Error),
    #[error("{0}")]
    Failed(String),
}

impl Client {
    /// Streams the file to GitLab, with the tries of 5.1.
    pub async fn upload_artifact(
        &self,
        _job: JobId,
        _token: &SecretString,
        _upload: &ArtifactUpload<'_>,
    ) -> Result<(), UploadError> {
        todo!()
    }

    /// Streams the archive of a dependency into the file `into`, which is created or emptied; returns its bytes.
    pub async fn download_artifacts(
        &self,
        _dependency: JobId,
        _token: &SecretString,
        _into: &Path,
    ) -> Result<u64, DownloadError> {
        todo!()
    }
}
