//! What a manager says and hears.

use job::hand_over::{HandOver, Receipt};

pub const ACCEPTED: Receipt = Receipt::Accepted;

/// A hand-over of the job `id`, with a payload of about `bytes`.
pub fn message(id: u64, bytes: usize) -> HandOver {
    let message = serde_json::json!({
        "version": 1,
        "payload": {"id": id, "token": "job-token", "filling": "x".repeat(bytes)},
        "gitlab": {"url": "http://gitlab.test", "tls_ca": null, "correlation_id": null},
        "runner": {
            "name": "dev", "short_token": "abcdefghi", "system_id": "s_0123456789ab",
            "builds_dir": "/builds", "cache_dir": "/cache", "environment": [], "feature_flags": {},
            "output_limit": 4194304, "shell": "", "pre_get_sources_script": "", "post_get_sources_script": "",
            "pre_build_script": "", "post_build_script": "", "clone_url": "", "custom_build_dir": true, "safe_directory_checkout": true,
            "clean_git_config": null, "get_sources_timeout": null, "artifact_upload_timeout": 3600,
            "artifact_response_header_timeout": 600, "debug_trace_disabled": false,
            "final_update_retries": 3, "concurrent_id": 0, "concurrent_project_id": 0,
        },
        "trace": {"text": "", "sent": 0, "interval_seconds": 3},
        "elapsed_seconds": 0.5,
    });
    serde_json::from_str(&message.to_string()).expect("a hand-over")
}
