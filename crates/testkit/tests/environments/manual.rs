//! What the manual tells about roles and checks is what the program has.

use std::fmt::Write;

use aws::stack::{Deployment, Purpose, Role, Statement, operators, roles};
use staffetta::deploy::file;

/// One environment with everything that a role's policy can be about.
const FILE: &str = r#"
name = "ci"
gitlab_url = "https://gitlab.example.com"
account = "123456789012"
region = "eu-west-1"

[environments.dev]
vpc = "vpc-1"
subnets = ["subnet-1"]
cache_expire_days = 14
"#;

fn deployment(text: &str) -> Deployment {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("staffetta.toml");
    std::fs::write(&path, text).expect("a file");
    file::load(&path).expect("a file without mistakes").deployment
}

/// The roles of this environment where it has its own manager, and the one of a shared manager.
fn all_roles() -> Vec<Role> {
    let shared = FILE.replace(
        "\n[env",
        "manager = \"shared\"\n[manager_service]\nvpc = \"vpc-1\"\nsubnets = [\"subnet-1\"]\n\n[env",
    );
    let mut all = roles(&deployment(FILE));
    let of_shared = roles(&deployment(&shared));
    all.extend(of_shared.into_iter().filter(|role| role.purpose == Purpose::SharedManager));
    all
}

/// A table of what a role may do, with `ACCOUNT` and `REGION` for those of the file.
fn table(statements: &[Statement]) -> String {
    let readable = |text: &str| text.replace("123456789012", "ACCOUNT").replace("eu-west-1", "REGION");
    let code = |text: &str| format!("`{}`", readable(text));
    let mut table = "| may | on | only if | why |\n| --- | --- | --- | --- |\n".to_owned();
    for Statement { actions, resources, conditions, why, .. } in statements {
        let actions: Vec<_> = actions.iter().map(|action| code(action)).collect();
        let resources: Vec<_> = resources.iter().map(|resource| code(resource)).collect();
        let conditions: Vec<_> = conditions
            .iter()
            .map(|condition| format!("`{}` is {}", condition.key, code(&condition.values.join("` or `"))))
            .collect();
        let columns = [actions.join(", "), resources.join(", "), conditions.join(" and "), (*why).to_owned()];
        writeln!(table, "| {} |", columns.join(" | ").replace("|  |", "| |")).expect("a text takes text");
    }
    table
}

/// What stands between `<!-- name -->` and the next such mark.
fn block<'a>(manual: &'a str, name: &str) -> &'a str {
    let (_, rest) = manual.split_once(&format!("<!-- {name} -->\n")).unwrap_or_else(|| panic!("no block {name}"));
    rest.split_once("<!--").unwrap_or_else(|| panic!("no end of {name}")).0
}

#[test]
fn the_manual_tells_every_policy_as_it_is_made() {
    const MANUAL: &str = include_str!("../../../../docs/security.md");
    let mut wrong = String::new();
    let roles = all_roles().into_iter().map(|role| (format!("{:?}", role.purpose), role.statements));
    let operator =
        operators(&deployment(FILE)).into_iter().map(|operator| ("Operator".to_owned(), operator.statements));
    for (name, statements) in roles.chain(operator) {
        let expected = table(&statements);
        // What jobs may do, the file says.
        if name != "Job" && block(MANUAL, &name) != expected {
            write!(wrong, "<!-- {name} -->\n{expected}<!-- end -->\n\n").expect("a text takes text");
        }
    }
    assert!(wrong.is_empty(), "docs/security.md is not up to date; it must have:\n\n{wrong}");
}

#[test]
fn the_manual_has_a_section_for_every_check_of_doctor() {
    const MANUAL: &str = include_str!("../../../../docs/troubleshooting.md");
    let sections: Vec<_> = MANUAL.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert_eq!(sections, staffetta::doctor::CHECKS, "sections of docs/troubleshooting.md, and the checks");
}
