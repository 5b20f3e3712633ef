//! What unit tests of several modules need.

use std::collections::BTreeMap;

use job::hand_over::{GitLabAccess, RunnerSettings};
use job::ids::{ShortToken, SystemId};
use job::payload::{Payload, Received};

/// A payload with the given fields, and an id.
pub fn payload(mut fields: serde_json::Value) -> Payload {
    fields["id"] = 1.into();
    Received::parse(fields.to_string().as_bytes()).expect("a payload").payload
}

pub fn gitlab() -> GitLabAccess {
    GitLabAccess { url: "https://gitlab.example.com".into(), tls_ca: None, tls_client: None, correlation_id: None }
}

pub fn runner(builds_dir: &str) -> RunnerSettings {
    RunnerSettings {
        name: "dev".into(),
        short_token: ShortToken::new("abcdefghi"),
        system_id: SystemId::new("s_0123456789ab"),
        builds_dir: builds_dir.into(),
        cache_dir: String::new(),
        environment: Vec::new(),
        feature_flags: BTreeMap::new(),
        output_limit: 4 << 20,
        shell: String::new(),
        pre_get_sources_script: String::new(),
        post_get_sources_script: String::new(),
        pre_build_script: String::new(),
        post_build_script: String::new(),
        clone_url: String::new(),
        custom_build_dir: true,
        safe_directory_checkout: true,
        clean_git_config: None,
        get_sources_timeout: None,
        artifact_upload_timeout: 3600,
        artifact_response_header_timeout: 600,
        debug_trace_disabled: false,
        final_update_retries: 3,
        concurrent_id: 0,
        concurrent_project_id: 0,
    }
}
