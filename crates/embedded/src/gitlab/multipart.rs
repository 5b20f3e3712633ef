//! Reading a `multipart/form-data` body with one large file, as a stream.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use axum::body::BodyDataStream;
use bytes::BytesMut;
use futures::StreamExt;
use sha2::{Digest, Sha256};

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the body is not multipart/form-data: {0}")]
    Malformed(&'static str),
    #[error("file is missing")]
    NoFile,
    #[error("the file is larger than allowed")]
    TooLarge,
    #[error("the connection ended: {0}")]
    Connection(axum::Error),
    #[error(transparent)]
    Disk(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct Upload {
    pub filename: String,
    pub size: u64,
    pub sha256: [u8; 32],
    /// The other fields.
    pub fields: BTreeMap<String, String>,
}

/// No header block and no field but the file may be longer.
const SHORT: usize = 16 * 1024;

/// The boundary that a content type names.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.strip_prefix("multipart/form-data")?;
    let boundary = parameters.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?.trim_matches('"');
    (!boundary.is_empty() && boundary.len() <= 70).then_some(boundary)
}

/// Writes the part named `file` to `into`.
pub(super) async fn receive(
    stream: &mut BodyDataStream,
    boundary: &str,
    into: &Path,
    limit: u64,
) -> Result<Upload, UploadError> {
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    // The first delimiter stands at the very start of the body.
    let mut body = Body { stream, buffer: BytesMut::from(&b"\r\n"[..]), ended: false };
    body.until(&delimiter, |_| Ok(())).await?;
    let mut fields = BTreeMap::new();
    let mut received = None;
    loop {
        let after = body.short_until(b"\r\n").await?;
        if after.starts_with(b"--") {
            break;
        }
        let mut head = b"\r\n".to_vec();
        head.extend(body.short_until(b"\r\n\r\n").await?);
        let (name, filename) = disposition(&head).ok_or(UploadError::Malformed("a part has no name"))?;
        match filename {
            Some(filename) if name == "file" && received.is_none() => {
                let mut file = File::create(into)?;
                let (mut size, mut sum) = (0, Sha256::new());
                body.until(&delimiter, |bytes| {
                    size += bytes.len() as u64;
                    if size > limit {
                        return Err(UploadError::TooLarge);
                    }
                    sum.update(bytes);
                    Ok(file.write_all(bytes)?)
                })
                .await?;
                received = Some((filename, size, sum.finalize().into()));
            }
            Some(_) => return Err(UploadError::Malformed("there is more than one file")),
            None => {
                let value = body.short_until(&delimiter).await?;
                fields.insert(name, String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    let (filename, size, sha256) = received.ok_or(UploadError::NoFile)?;
    Ok(Upload { filename, size, sha256, fields })
}

struct Body<'s> {
    stream: &'s mut BodyDataStream,
    buffer: BytesMut,
    ended: bool,
}

impl Body<'_> {
    /// Gives everything before `end` to `take`, and passes `end`.
    async fn until(
        &mut self,
        end: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), UploadError>,
    ) -> Result<(), UploadError> {
        loop {
            match find(&self.buffer, end) {
                Found::At(at) => {
                    take(&self.buffer.split_to(at))?;
                    let _ = self.buffer.split_to(end.len());
                    return Ok(());
                }
                Found::NotBefore(at) => take(&self.buffer.split_to(at))?,
            }
            if !self.fill().await? {
                // The last line may end with the body.
                return if end == b"\r\n" && self.ended {
                    Ok(())
                } else {
                    Err(UploadError::Malformed("it is cut off"))
                };
            }
        }
    }

    async fn short_until(&mut self, end: &[u8]) -> Result<Vec<u8>, UploadError> {
        let mut taken = Vec::new();
        let take = |bytes: &[u8]| {
            taken.extend_from_slice(bytes);
            if taken.len() > SHORT { Err(UploadError::Malformed("a part is too long")) } else { Ok(()) }
        };
        self.until(end, take).await?;
        if self.ended {
            taken.extend_from_slice(&std::mem::take(&mut self.buffer));
        }
        Ok(taken)
    }

    async fn fill(&mut self) -> Result<bool, UploadError> {
        match self.stream.next().await {
            Some(chunk) => self.buffer.extend_from_slice(&chunk.map_err(UploadError::Connection)?),
            None => self.ended = true,
        }
        Ok(!self.ended)
    }
}

enum Found {
    At(usize),
    /// Nothing yet, and it does not begin before this place.
    NotBefore(usize),
}

fn find(bytes: &[u8], end: &[u8]) -> Found {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == end[0]).map(|at| from + at) {
        let rest = &bytes[at..];
        if rest.starts_with(end) {
            return Found::At(at);
        }
        if end.starts_with(rest) {
            return Found::NotBefore(at);
        }
        from = at + 1;
    }
    Found::NotBefore(bytes.len())
}

/// The name and the file name of a part.
fn disposition(head: &[u8]) -> Option<(String, Option<String>)> {
    let head = String::from_utf8_lossy(head);
    let is_disposition = |line: &&str| line.to_ascii_lowercase().starts_with("content-disposition:");
    let line = head.split("\r\n").find(is_disposition)?;
    Some((parameter(line, "name")?, parameter(line, "filename")))
}

fn parameter(line: &str, key: &str) -> Option<String> {
    let start = line.find(&format!("; {key}=\"")).map(|at| at + key.len() + 4)?;
    let mut value = String::new();
    let mut characters = line[start..].chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Some(value),
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    async fn read(body: &[u8], chunk: usize, limit: u64) -> Result<(Upload, Vec<u8>), UploadError> {
        let directory = tempfile::tempdir().expect("a directory");
        let into = directory.path().join("file");
        let chunks: Vec<_> = body.chunks(chunk).map(|c| Ok::<_, io::Error>(Bytes::copy_from_slice(c))).collect();
        let mut stream = axum::body::Body::from_stream(futures::stream::iter(chunks)).into_data_stream();
        let upload = receive(&mut stream, "XX", &into, limit).await?;
        Ok((upload, std::fs::read(into).expect("the file")))
    }

    const BODY: &[u8] = b"--XX\r\nContent-Disposition: form-data; name=\"expire_in\"\r\n\r\n1 day\r\n\
        --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"b\\\".zip\"\r\n\
        Content-Type: application/octet-stream\r\n\r\nPK\r\n--X\r\n-\r\r\n\r\n--XX--\r\n";

    #[tokio::test]
    async fn a_file_is_read_whole_however_the_body_is_cut() {
        for chunk in 1..BODY.len() {
            let (upload, bytes) = read(BODY, chunk, 100).await.expect("an upload");
            assert_eq!(bytes, b"PK\r\n--X\r\n-\r\r\n", "chunks of {chunk}");
            assert_eq!((upload.filename.as_str(), upload.size), ("a \"b\".zip", bytes.len() as u64));
            assert_eq!(upload.fields["expire_in"], "1 day");
            assert_eq!(upload.sha256, <[u8; 32]>::from(Sha256::digest(&bytes)));
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_body_is_told_apart() {
        assert!(matches!(read(BODY, 7, 5).await, Err(UploadError::TooLarge)));
        assert!(matches!(read(&BODY[..BODY.len() - 8], 7, 100).await, Err(UploadError::Malformed(_))));
        assert!(matches!(read(b"hello", 7, 100).await, Err(UploadError::Malformed(_))));
        let no_file = b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--XX--\r\n";
        assert!(matches!(read(no_file, 7, 100).await, Err(UploadError::NoFile)));
        assert!(matches!(read(b"--XX--", 7, 100).await, Err(UploadError::NoFile)));
    }

    #[test]
    fn a_boundary_is_found_with_and_without_quotes() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("multipart/form-data; charset=x; boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("application/json; boundary=abc"), None);
    }
}
