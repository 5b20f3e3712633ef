//! The step `release`: what the runner runs after the script of a job that has `release` [S].
//!
//! GitLab sends one script that calls `glab`, or `release-cli` where that is missing. This one calls the same programs with the
//! same arguments; that GitLab also asks for glab's version, and gives it a certificate, is left out.

use serde_json::Value;

use super::ci::Release;

pub(super) fn script(release: &Release) -> String {
    format!(
        "if command -v glab >/dev/null 2>&1; then\n  \
           export GITLAB_HOST=$CI_SERVER_URL\n  \
           glab auth login --job-token $CI_JOB_TOKEN --hostname \"$CI_SERVER_FQDN\" --api-protocol $CI_SERVER_PROTOCOL\n  \
           {}\n\
         else\n  \
           {}\n\
         fi\n",
        glab(release),
        release_cli(release),
    )
}

fn glab(release: &Release) -> String {
    let mut command = format!("glab release create -R $CI_PROJECT_PATH \"{}\"", release.tag_name);
    if !release.links.is_empty() {
        command += &format!(" --assets-links {}", quoted(&Value::from(release.links.clone())));
    }
    if !release.milestones.is_empty() {
        command += &format!(" --milestone \"{}\"", release.milestones.join(","));
    }
    let git_ref = release.git_ref.as_deref().unwrap_or("$CI_COMMIT_SHA");
    for (flag, value) in [
        ("name", release.name.as_deref()),
        ("experimental-notes-text-or-file", Some(release.description.as_str())),
        ("ref", Some(git_ref)),
        ("tag-message", release.tag_message.as_deref()),
        ("released-at", release.released_at.as_deref()),
    ] {
        command += &value.map(|value| format!(" --{flag} \"{value}\"")).unwrap_or_default();
    }
    command + " --no-update --no-close-milestone"
}

fn release_cli(release: &Release) -> String {
    let mut command = "release-cli create".to_owned();
    for (flag, value) in [
        ("name", release.name.as_deref()),
        ("description", Some(release.description.as_str())),
        ("tag-name", Some(release.tag_name.as_str())),
        ("tag-message", release.tag_message.as_deref()),
        ("ref", release.git_ref.as_deref()),
        ("released-at", release.released_at.as_deref()),
    ] {
        command += &value.map(|value| format!(" --{flag} \"{value}\"")).unwrap_or_default();
    }
    command.extend(release.milestones.iter().map(|milestone| format!(" --milestone \"{milestone}\"")));
    command.extend(release.links.iter().map(|link| format!(" --assets-link {}", quoted(link))));
    command
}

/// JSON as one word of a shell.
fn quoted(value: &Value) -> String {
    Value::from(value.to_string()).to_string()
}
