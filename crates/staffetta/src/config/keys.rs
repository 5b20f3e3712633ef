//! The keys of GitLab's `config.toml` that have no effect here, each with the reason that a user reads (protocol 10.2, 10.3).

/// At the top of the file.
pub const GLOBAL_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("experimental", "nothing experimental of GitLab's runner is offered"),
    ("machine", "every job has its own Fargate task"),
    ("sentry_dsn", "errors go to the log"),
    ("session_server", "there is no web terminal"),
    ("user", "the manager runs as the user who starts it"),
];

/// In a `[[runners]]` entry.
pub const RUNNER_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("autoscaler", OTHER_EXECUTOR),
    ("custom", OTHER_EXECUTOR),
    ("docker", OTHER_EXECUTOR),
    ("experimental", "nothing experimental of GitLab's runner is offered"),
    ("fargate", OTHER_EXECUTOR),
    ("instance", OTHER_EXECUTOR),
    ("kubernetes", OTHER_EXECUTOR),
    ("machine", OTHER_EXECUTOR),
    ("parallels", OTHER_EXECUTOR),
    ("proxy_exec", "the agent masks the whole log"),
    ("referees", "there are no referees"),
    ("slot_cgroup_template", "every job has its own Fargate task"),
    ("ssh", OTHER_EXECUTOR),
    ("step_runner_image", "GitLab Steps are not offered"),
    ("use_slot_cgroups", "every job has its own Fargate task"),
    ("virtualbox", OTHER_EXECUTOR),
];

const OTHER_EXECUTOR: &str = "it belongs to another executor than this entry's";

/// The known name that a writer most likely meant, if one is close enough.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let allowed = 1 + name.chars().count() / 4;
    let near = known.map(|candidate| (distance(name, candidate), candidate)).min()?;
    (near.0 <= allowed).then_some(near.1)
}

/// Levenshtein distance; `-` and `_` count as the same character, for GitLab's config uses both.
fn distance(one: &str, other: &str) -> usize {
    let simple = |text: &str| text.to_ascii_lowercase().replace('-', "_").chars().collect::<Vec<_>>();
    let (one, other) = (simple(one), simple(other));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_key_and_a_foreign_word_does_not() {
        let known = || ["concurrent", "tls-ca-file", "limit", "url"].into_iter();
        for (written, meant) in [
            ("concurent", Some("concurrent")),
            ("Concurrent", Some("concurrent")),
            ("tls_ca_file", Some("tls-ca-file")),
            ("limits", Some("limit")),
            ("uri", Some("url")),
            ("flavour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, known()), meant, "{written}");
        }
    }

    #[test]
    fn the_distance_counts_single_changes() {
        for (one, other, changes) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
            assert_eq!(distance(one, other), changes);
            assert_eq!(distance(other, one), changes);
        }
    }
}
