//! What ECR says about an image: whether it is there, and for which architectures.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::errors::{CallError, Refusal, chain};
use crate::proxies;
use crate::session::Session;

/// An image in ECR, as a task definition names it: `ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrImage {
    pub account: String,
    pub region: String,
    pub repository: String,
    /// `latest`, or `sha256:…`
    pub reference: String,
}

/// What stands in the repository under that tag or digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    NoRepository,
    NoImage,
    /// Architectures as images name them: `amd64`, `arm64`. Or why they cannot be told.
    Image {
        architectures: Result<Vec<String>, CallError>,
    },
}

/// An image's configuration is some KB; nobody waits longer for it, or takes more.
const DOWNLOAD: Duration = Duration::from_secs(20);
const LARGEST: usize = 4 << 20;

/// What stands under the tag or digest itself.
enum Manifest {
    NoRepository,
    NoImage,
    There(String),
}

impl EcrImage {
    /// None for an image of any other registry.
    pub fn parse(image: &str) -> Option<Self> {
        let (host, path) = image.split_once('/')?;
        let (account, rest) = host.split_once(".dkr.ecr.")?;
        let region = rest.strip_suffix(".cn").unwrap_or(rest).strip_suffix(".amazonaws.com")?;
        let (path, digest) = path.split_once('@').map_or((path, None), |(path, digest)| (path, Some(digest)));
        let (repository, tag) = path.split_once(':').unwrap_or((path, "latest"));
        Some(Self {
            account: account.to_owned(),
            region: region.to_owned(),
            repository: repository.to_owned(),
            reference: digest.unwrap_or(tag).to_owned(),
        })
    }
}

/// Looks an image up; `session` must be of its region. Needs `ecr:BatchGetImage`, and `ecr:GetDownloadUrlForLayer` for an image
/// of one architecture, which stands only in its configuration.
pub async fn stored_image(session: &Session, image: &EcrImage) -> Result<Stored, CallError> {
    let manifest = match manifest(session, image).await? {
        Manifest::NoRepository => return Ok(Stored::NoRepository),
        Manifest::NoImage => return Ok(Stored::NoImage),
        Manifest::There(text) => serde_json::from_str(&text).unwrap_or_default(),
    };
    let architectures = match of_index(&manifest) {
        Some(architectures) => Ok(architectures),
        None => of_configuration(session, image, &manifest).await.map(|architecture| vec![architecture]),
    };
    Ok(Stored::Image { architectures })
}

/// Whether there is such an image, and no more; `session` must be of its region. Needs `ecr:BatchGetImage`.
pub async fn image_exists(session: &Session, image: &EcrImage) -> Result<bool, CallError> {
    Ok(matches!(manifest(session, image).await?, Manifest::There(_)))
}

async fn manifest(session: &Session, image: &EcrImage) -> Result<Manifest, CallError> {
    let id = if image.reference.contains(':') { "imageDigest" } else { "imageTag" };
    let question = json!({
        "registryId": image.account,
        "repositoryName": image.repository,
        "imageIds": [{id: image.reference}],
        "acceptedMediaTypes": [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ],
    });
    let answer = match session.json("ecr", "AmazonEC2ContainerRegistry_V20150921.BatchGetImage", question).await {
        Err(CallError::Refused(refusal)) if refusal.code == "RepositoryNotFoundException" => {
            return Ok(Manifest::NoRepository);
        }
        answer => answer?,
    };
    if let Some(manifest) = answer["images"][0]["imageManifest"].as_str() {
        return Ok(Manifest::There(manifest.to_owned()));
    }
    match answer["failures"][0]["failureCode"].as_str() {
        None | Some("ImageNotFound" | "ImageTagDoesNotMatchDigest") => Ok(Manifest::NoImage),
        Some(code) => Err(CallError::Refused(Refusal {
            code: code.to_owned(),
            message: answer["failures"][0]["failureReason"].as_str().unwrap_or_default().to_owned(),
        })),
    }
}

/// The architectures for Linux of an index. What build tools attest stands there as images for `unknown`.
fn of_index(manifest: &Value) -> Option<Vec<String>> {
    let platforms = manifest["manifests"].as_array()?.iter().map(|manifest| &manifest["platform"]);
    let linux = platforms.filter(|platform| platform["os"] == "linux");
    Some(linux.filter_map(|platform| platform["architecture"].as_str()).map(str::to_owned).collect())
}

async fn of_configuration(session: &Session, image: &EcrImage, manifest: &Value) -> Result<String, CallError> {
    let not_understood = |what: &str| CallError::NoAnswer(format!("not understood: {what}"));
    let digest = manifest["config"]["digest"].as_str().ok_or_else(|| not_understood("a manifest without config"))?;
    let question = json!({"registryId": image.account, "repositoryName": image.repository, "layerDigest": digest});
    let target = "AmazonEC2ContainerRegistry_V20150921.GetDownloadUrlForLayer";
    let answer = session.json("ecr", target, question).await?;
    let url = answer["downloadUrl"].as_str().ok_or_else(|| not_understood("no downloadUrl"))?;
    let configuration: Value = serde_json::from_slice(&download(url, DOWNLOAD).await?).unwrap_or_default();
    let architecture = configuration["architecture"].as_str();
    Ok(architecture.ok_or_else(|| not_understood("a configuration without architecture"))?.to_owned())
}

/// From S3, by an address that is signed already.
async fn download(url: &str, patience: Duration) -> Result<Vec<u8>, CallError> {
    let late =
        |_| CallError::NoAnswer(format!("S3 does not give the image's configuration within {} s", patience.as_secs()));
    timeout(patience, download_all(url)).await.map_err(late)?
}

async fn download_all(url: &str) -> Result<Vec<u8>, CallError> {
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri(url).map_err(|error| CallError::NoAnswer(format!("not understood: {error}")))?;
    let connector = proxies::connector(Some(url));
    let response = connector.call(request).await.map_err(|error| CallError::NoAnswer(chain(&error)))?;
    let status = response.status();
    if !status.is_success() {
        return Err(CallError::NoAnswer(format!("S3 answers {} for the image's configuration", status.as_u16())));
    }
    let mut body = ByteStream::new(response.into_body());
    let mut read = Vec::new();
    while let Some(bytes) = body.try_next().await.map_err(|error| CallError::NoAnswer(chain(&error)))? {
        read.extend_from_slice(&bytes);
        if read.len() > LARGEST {
            let evidence = format!("the image's configuration is larger than {} MiB", LARGEST >> 20);
            return Err(CallError::NoAnswer(evidence));
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use futures::stream;

    use super::*;

    /// What stands for S3: a body that goes on for ever, with bytes or without.
    async fn endless(silent: bool) -> String {
        let body = move || async move {
            match silent {
                true => Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>()),
                false => Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]))),
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", get(body))).await });
        url
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_for_a_configuration_or_takes_all_of_it() {
        let said = async |silent: bool, patience: Duration| {
            download(&endless(silent).await, patience).await.expect_err("no configuration").to_string()
        };
        let silent = said(true, Duration::from_millis(50)).await;
        assert!(silent.contains("does not give the image's configuration"), "{silent}");
        let large = said(false, DOWNLOAD).await;
        assert!(large.contains("larger than 4 MiB"), "{large}");
    }

    #[test]
    fn an_image_of_ecr_is_known_by_its_host() {
        let image = |repository: &str, reference: &str, region: &str| {
            Some(EcrImage {
                account: "123456789012".into(),
                region: region.into(),
                repository: repository.into(),
                reference: reference.into(),
            })
        };
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(EcrImage::parse(&format!("{host}/ci/task:v1")), image("ci/task", "v1", "eu-west-1"));
        assert_eq!(EcrImage::parse(&format!("{host}/ci")), image("ci", "latest", "eu-west-1"));
        assert_eq!(EcrImage::parse(&format!("{host}/ci:v1@sha256:1")), image("ci", "sha256:1", "eu-west-1"));
        let china = "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/ci";
        assert_eq!(EcrImage::parse(china), image("ci", "latest", "cn-north-1"));
        for other in
            ["alpine", "docker.io/library/alpine:3", "public.ecr.aws/docker/library/alpine", "ghcr.io/a/b@sha256:1"]
        {
            assert_eq!(EcrImage::parse(other), None, "{other}");
        }
    }

    #[test]
    fn attestations_are_no_architecture() {
        let platform = |os: &str, architecture: &str| json!({"platform": {"os": os, "architecture": architecture}});
        let index = json!({"manifests": [
            platform("linux", "amd64"), platform("unknown", "unknown"), platform("windows", "arm64"),
            platform("linux", "arm64"), {"digest": "sha256:1"},
        ]});
        assert_eq!(of_index(&index), Some(vec!["amd64".into(), "arm64".into()]));
        assert_eq!(of_index(&json!({"config": {}})), None);
    }
}
