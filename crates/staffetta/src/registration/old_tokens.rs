//! Tokens that were replaced, in `.staffetta_old_tokens` beside `config.toml`.
//!
//! A task is known in ECS, and reached, by the token that it was started with. An old token is kept until no task of
//! it is left; a manager that starts anew, or learns of a new token from the file, finds its running jobs by it.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use jiff::Timestamp;
use job::secret::{ExposeSecret, SecretString, expose};
use serde::{Deserialize, Serialize};

use super::new_version::{NewVersion, read};

const FILE: &str = ".staffetta_old_tokens";
const HEAD: &str = "\
# Tokens that GitLab has replaced by those in config.toml. Tasks that were started with them are found by them.
# Staffetta removes each when its last task is gone.
";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OldToken {
    /// The name of its `[[runners]]` entry.
    pub runner: String,
    #[serde(serialize_with = "expose")]
    pub token: SecretString,
    #[serde(with = "text")]
    pub replaced_at: Timestamp,
}

#[derive(Default, Serialize, Deserialize)]
struct Tokens {
    #[serde(default)]
    tokens: Vec<OldToken>,
}

pub fn load(config_file: &Path) -> anyhow::Result<Vec<OldToken>> {
    parse(&read(&beside(config_file))?)
}

/// To be called before GitLab replaces the token: a crash in between must not lose the tasks.
pub fn keep(config_file: &Path, runner: &str, token: &SecretString, now: Timestamp) -> anyhow::Result<()> {
    NewVersion::like(config_file, &beside(config_file))?.write(|text| {
        let mut tokens = without(parse(text)?, token);
        tokens.push(OldToken { runner: runner.to_owned(), token: token.clone(), replaced_at: now });
        render(tokens)
    })
}

pub fn forget(config_file: &Path, token: &SecretString) -> anyhow::Result<()> {
    NewVersion::like(config_file, &beside(config_file))?.write(|text| render(without(parse(text)?, token)))
}

fn beside(config_file: &Path) -> PathBuf {
    config_file.with_file_name(FILE)
}

fn without(tokens: Vec<OldToken>, token: &SecretString) -> Vec<OldToken> {
    tokens.into_iter().filter(|old| old.token.expose_secret() != token.expose_secret()).collect()
}

/// The error shows the line's number and never the line: it is full of tokens.
fn parse(text: &str) -> anyhow::Result<Vec<OldToken>> {
    let tokens: Tokens = toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = &text.as_bytes()[..error.span().map_or(0, |span| span.start).min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        anyhow!("{FILE}:{line} is not as Staffetta writes it; remove the file if no job of an earlier token runs")
    })?;
    Ok(tokens.tokens)
}

fn render(tokens: Vec<OldToken>) -> anyhow::Result<String> {
    Ok(format!("{HEAD}\n{}", toml::to_string(&Tokens { tokens })?))
}

/// RFC 3339 as a TOML text.
mod text {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_are_kept_for_their_owner_only_until_they_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        let (one, two) = (SecretString::from("glrt-one"), SecretString::from("glrt-two"));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(load(&config).unwrap().is_empty());
        keep(&config, "dev", &one, now).unwrap();
        keep(&config, "dev", &two, now).unwrap();
        keep(&config, "dev", &one, now).unwrap();
        let kept = load(&config).unwrap();
        let tokens: Vec<_> = kept.iter().map(|old| (old.runner.as_str(), old.token.expose_secret())).collect();
        assert_eq!(tokens, [("dev", "glrt-two"), ("dev", "glrt-one")]);
        assert_eq!(kept[0].replaced_at, now);
        let file = directory.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        forget(&config, &two).unwrap();
        forget(&config, &one).unwrap();
        assert!(load(&config).unwrap().is_empty());
        assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), format!("{HEAD}\ntokens = []"));
    }

    #[test]
    fn a_file_that_cannot_be_read_shows_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        for broken in ["tokens = \"glrt-secret\"", "[[tokens]]\ntoken = \"glrt-secret\"", "glrt-secret"] {
            fs::write(directory.path().join(FILE), broken).unwrap();
            let told = format!("{:#}", load(&config).unwrap_err());
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
