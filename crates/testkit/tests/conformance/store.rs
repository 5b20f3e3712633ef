//! A store of caches for one case: moto's S3, filled before and looked at afterwards.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Cursor, Write};

use testkit::Moto;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::case::{Store, Stored};
use crate::expect;

/// Where the caches of a shared runner lie.
fn folder() -> String {
    format!("project/{}/", embedded::gitlab::PROJECT_ID)
}

pub struct CaseStore<'a> {
    bucket: String,
    store: &'a Store,
}

/// A bucket of a case's own; the name of the case may be too long for one.
pub fn bucket_of(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    format!("case-{:016x}", hasher.finish())
}

impl<'a> CaseStore<'a> {
    /// What is in the bucket already is removed.
    pub async fn filled(bucket: String, store: &'a Store) -> Self {
        let moto = Moto::shared();
        moto.create_bucket(&bucket).await;
        for key in moto.keys(&bucket).await {
            moto.remove_object(&bucket, &key).await;
        }
        for (key, stored) in &store.before {
            let content = match stored {
                Stored::Archive(files) => archive(files),
                Stored::Text(text) => text.clone().into_bytes(),
            };
            moto.put_object(&bucket, &(folder() + key), content).await;
        }
        Self { bucket, store }
    }

    /// For the `[[runners]]` entry.
    pub fn config(&self) -> String {
        format!(
            r#"
[runners.cache]
Type = "s3"
Shared = true
{}
[runners.cache.s3]
ServerAddress = "{}"
Insecure = true
AccessKey = "manager"
SecretKey = "secret"
BucketName = "{}"
"#,
            self.store.config,
            Moto::shared().address(),
            self.bucket,
        )
    }

    /// Exactly these objects.
    pub async fn differences(&self) -> Vec<String> {
        let Some(expected) = &self.store.after else { return Vec::new() };
        let mut wrong = Vec::new();
        let keys = Moto::shared().keys(&self.bucket).await;
        let keys: Vec<_> = keys.iter().map(|key| key.strip_prefix(&folder()).unwrap_or(key)).collect();
        let missing = expected.keys().filter(|key| !keys.contains(&key.as_str()));
        wrong.extend(missing.map(|key| format!("the store lacks {key}; it has {keys:?}")));
        let unexpected = keys.iter().filter(|key| !expected.contains_key(**key));
        wrong.extend(unexpected.map(|key| format!("the store has {key}, which is one too many")));
        for (key, entries) in expected {
            let Some(content) = Moto::shared().object(&self.bucket, &(folder() + key)).await else { continue };
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), content).expect("a file");
            match expect::zip_entries(file.path()) {
                Ok(found) => expect::compare_entries(entries, &found, &format!("cache {key}"), &mut wrong),
                Err(error) => wrong.push(format!("cache {key} cannot be read: {error}")),
            }
        }
        wrong
    }
}

fn archive(files: &BTreeMap<String, String>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).expect("an entry");
        zip.write_all(content.as_bytes()).expect("an entry");
    }
    zip.finish().expect("a zip").into_inner()
}
