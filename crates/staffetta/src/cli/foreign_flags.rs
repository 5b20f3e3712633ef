//! Flags that `gitlab-runner register` has and ours has not: what to do instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// clap's error, or in its place a sentence about a flag of GitLab's runner.
pub fn or_foreign_flag(error: clap::Error) -> clap::Error {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => flag.as_str(),
        _ => return error,
    };
    match about_foreign_flag(flag) {
        Some(sentence) => clap::Error::raw(ErrorKind::UnknownArgument, format!("{sentence}\n")),
        None => error,
    }
}

/// What to say of a flag that `gitlab-runner register` has and this one has not.
fn about_foreign_flag(flag: &str) -> Option<String> {
    let name = flag.strip_prefix("--")?;
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    if begins(&["docker-", "kubernetes-", "machine-", "parallels-", "ssh-", "virtualbox-", "autoscaler-", "instance-"])
    {
        return Some(format!(
            "{flag} is for another executor of gitlab-runner; Staffetta runs jobs on Fargate only. Leave it out."
        ));
    }
    if begins(&["cache-", "custom_build_dir-", "feature-flags", "referees-", "runner-monitoring"])
        || [
            "clean-git-config",
            "debug-trace-disabled",
            "get-sources-timeout",
            "job-status-final-update-retry-limit",
            "prepare-timeout",
            "proxy-exec",
            "safe-directory-checkout",
            "slot-cgroup-template",
            "step-runner-image",
            "strict-check-interval",
            "unhealthy-interval",
            "unhealthy-requests-limit",
            "use-slot-cgroups",
        ]
        .contains(&name)
    {
        return Some(format!(
            "{flag} is not taken here: write the key into the file that --template-config names, or into config.toml afterwards."
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_other_executors_are_told_from_slips() {
        assert!(about_foreign_flag("--docker-image").unwrap().contains("Fargate only"));
        assert!(about_foreign_flag("--cache-type").unwrap().contains("--template-config"));
        assert_eq!(about_foreign_flag("--dockre"), None);
        assert_eq!(about_foreign_flag("stray"), None);
    }
}
