//! Runners come and go: what is told to GitLab (protocol 1), and their entries in `config.toml`.
//!
//! A token that GitLab gave is lost if it is not written down. So before GitLab is asked for one, [`new_version`] takes
//! the room on the disk that the file will need.

pub mod ask;
pub mod entries;
pub mod new_entry;
pub mod new_version;
pub mod old_tokens;
pub mod register;
pub mod renew;

/// The variable with the token of a person, who may make and reset runners in GitLab.
pub const PERSONAL_ACCESS_TOKEN: &str = "GITLAB_PERSONAL_ACCESS_TOKEN";
