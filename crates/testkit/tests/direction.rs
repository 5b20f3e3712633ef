//! Holds the arrows between the crates: reads the manifests, and finds each dependency that the picture in
//! ARCHITECTURE.md does not have. Dependencies of tests and of builds count too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::Table;

/// Each crate of ours, and those of ours that it may reach.
const ARROWS: [(&str, &[&str]); 8] = [
    ("job", &[]),
    ("gitlab", &["job"]),
    ("ssh", &["job"]),
    ("aws", &["job"]),
    ("agent", &["gitlab", "job", "ssh"]),
    // A judge that shared its parsing with the judged would share its mistakes.
    ("embedded", &[]),
    ("staffetta", &["aws", "embedded", "gitlab", "job", "ssh"]),
    ("testkit", &["agent", "aws", "embedded", "gitlab", "job", "ssh", "staffetta"]),
];

/// Heavy or delicate dependencies, by the start of their names, each with the one crate that knows it.
const KEPT_IN: [(&str, &str); 2] = [("aws-", "aws"), ("russh", "ssh")];

/// Every dependency in a manifest, of whatever kind, under its real name.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            let real = |(name, entry): (&String, &toml::Value)| {
                entry.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned()
            };
            found.extend(table.iter().map(real));
        } else if key == "target" {
            found.extend(table.values().filter_map(toml::Value::as_table).flat_map(dependencies));
        }
    }
    found
}

fn wrong_arrows(name: &str, manifest: &Table) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        return vec![format!("{name} is a new crate: give it its place in ARROWS and in ARCHITECTURE.md")];
    };
    let is_ours = |dependency: &str| ARROWS.iter().any(|(known, _)| *known == dependency);
    let wrong = |dependency: &String| {
        (is_ours(dependency) && !allowed.contains(&dependency.as_str()))
            || KEPT_IN.iter().any(|(start, home)| dependency.starts_with(start) && *home != name)
    };
    dependencies(manifest).into_iter().filter(wrong).map(|dependency| format!("{name} -> {dependency}")).collect()
}

#[test]
fn the_crates_reach_each_other_only_along_the_arrows() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the directory of the crates");
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for entry in fs::read_dir(crates).expect("the crates") {
        let path = entry.expect("a crate").path();
        let text = fs::read_to_string(path.join("Cargo.toml")).expect("a manifest");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        wrong.extend(wrong_arrows(&name, &text.parse().expect("TOML")));
        seen.insert(name);
    }
    assert!(wrong.is_empty(), "arrows that ARCHITECTURE.md does not have: {wrong:#?}");
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, known, "ARROWS names a crate that is gone");
}

#[test]
fn a_wrong_arrow_is_found_in_whatever_way_it_is_written() {
    let wrong = |name: &str, manifest: &str| wrong_arrows(name, &manifest.parse().expect("TOML"));
    assert_eq!(wrong("agent", "[dependencies]\naws.workspace = true\njob.workspace = true"), ["agent -> aws"]);
    assert_eq!(wrong("embedded", "[dev-dependencies]\njob = { path = \"../job\" }"), ["embedded -> job"]);
    assert_eq!(wrong("job", "[dependencies.rules]\npackage = \"gitlab\""), ["job -> gitlab"]);
    assert_eq!(wrong("ssh", "[target.'cfg(unix)'.build-dependencies]\ntestkit = \"1\""), ["ssh -> testkit"]);
    assert_eq!(wrong("gitlab", "[dependencies]\naws-config = \"1\""), ["gitlab -> aws-config"]);
    assert_eq!(wrong("ssh", "[dependencies]\nrussh = \"1\"\nserde = \"1\""), [""; 0]);
    assert_eq!(wrong("webhooks", "").len(), 1);
}
