//! Which keywords are known, and what somebody may have meant who wrote another word.

use super::mistakes::Mistakes;
use super::yaml::Map;

/// Refuses each key of `map` that is not in `known`. `elsewhere` are GitLab's keywords that this server does not act
/// on: it says so instead of guessing at a typing mistake. `what` is the owner, for example "a job".
pub(super) fn check(map: &Map, what: &str, known: &[&str], elsewhere: &[&str], mistakes: &mut Mistakes) {
    for entry in &map.0 {
        let key = entry.key.as_str();
        if known.contains(&key) {
            continue;
        }
        let message = if elsewhere.contains(&key) {
            format!("the keyword `{key}` of {what} is not supported here")
        } else {
            format!("`{key}` is not a keyword of {what}{}", did_you_mean(key, known.iter().copied()))
        };
        mistakes.add(entry.at, message);
    }
}

/// `; did you mean …?` or nothing.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match near_miss(word, known) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

pub(super) fn near_miss<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |word: &str| -> Vec<char> { word.to_lowercase().replace('-', "_").chars().collect() };
    let word = plain(word);
    let allowed = (word.len() / 3).min(3);
    known
        .into_iter()
        .map(|known| (distance(&word, &plain(known)), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many letters to add, drop, change or swap with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        let known = ["script", "before_script", "stage", "tags", "needs", "variables"];
        for (word, meant) in [
            ("scirpt", Some("script")),
            ("tag", Some("tags")),
            ("Stage", Some("stage")),
            ("before-script", Some("before_script")),
            ("variabels", Some("variables")),
            ("need", Some("needs")),
            ("deploy", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(near_miss(word, known), meant, "{word}");
        }
    }
}
