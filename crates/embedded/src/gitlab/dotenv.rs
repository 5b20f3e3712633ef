//! The dotenv report: variables that a job leaves for the jobs after it.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// GitLab's limits are those of the plan; these are the largest ones of GitLab.com.
const LARGEST_FILE: u64 = 5 * 1024;
const MOST_VARIABLES: usize = 150;

#[derive(Debug, thiserror::Error)]
pub(super) enum DotenvError {
    #[error("Dotenv Artifact Too Big. Maximum Allowable Size: {LARGEST_FILE}")]
    TooBig,
    #[error("Dotenv files cannot have more than {MOST_VARIABLES} variables")]
    TooMany,
    #[error("Invalid Format")]
    Format,
    #[error("Validation failed: Key can contain only letters, digits and '_'.")]
    Key,
    #[error("not a gzip file: {0}")]
    Gzip(#[from] io::Error),
}

/// Reads gzip members with `KEY=VALUE` lines; the last duplicate wins.
pub(super) fn read(file: impl Read) -> Result<Vec<(String, String)>, DotenvError> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(file).take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(DotenvError::TooBig);
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let (key, value) = line.split_once('=').ok_or(DotenvError::Format)?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(DotenvError::Key);
        }
        variables.retain(|(known, _)| known != key);
        variables.push((key.to_owned(), value.to_owned()));
    }
    if variables.len() > MOST_VARIABLES {
        return Err(DotenvError::TooMany);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).expect("write");
        encoder.finish().expect("finish")
    }

    #[test]
    fn variables_of_several_members_are_read_and_the_last_duplicate_wins() {
        let bytes = [gzip("A=1\nB = two words \r\n"), gzip("A=x=y\n")].concat();
        let variables = read(bytes.as_slice()).expect("variables");
        assert_eq!(variables, [("B".to_owned(), "two words".to_owned()), ("A".to_owned(), "x=y".to_owned())]);
    }

    #[test]
    fn what_gitlab_refuses_is_refused() {
        let refused = |text: &str| read(gzip(text).as_slice()).expect_err(text).to_string();
        assert_eq!(refused("A=1\n\nB=2\n"), "Invalid Format");
        assert!(refused("A B=1\n").starts_with("Validation failed"));
        assert!(refused(&format!("A={}\n", "x".repeat(6000))).starts_with("Dotenv Artifact Too Big"));
        let many: String = (0..151).map(|n| format!("V{n}=1\n")).collect();
        assert!(refused(&many).contains("150"));
        assert!(matches!(read(&b"A=1\n"[..]), Err(DotenvError::Gzip(_))));
    }
}
