//! The text of a new `[[runners]]` entry, from a template or from nothing, and where it goes in the file.

use std::path::Path;

use anyhow::{Context, anyhow};
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::entries::{Given, identify, runners, set};
use super::new_version::parse;

/// The head of a file that register makes, as GitLab's runner has it.
const NEW_FILE: &str = "concurrent = 1\ncheck_interval = 0\n";

/// Who a runner is, first in its entry, in the order of GitLab's runner.
const IDENTITY: [&str; 6] = ["name", "url", "id", "token", "token_obtained_at", "token_expires_at"];

/// One key of an entry; the path is below `runners`.
#[derive(Debug, Clone)]
pub struct Setting {
    pub path: &'static [&'static str],
    pub value: Value,
}

/// The one entry that a new one begins with.
#[derive(Debug, Clone)]
pub struct Template(DocumentMut);

impl Template {
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::read(file, &text)
    }

    /// What stands beside `[[runners]]` has no meaning in a template, as in GitLab's runner; so has a token.
    fn read(file: &Path, text: &str) -> anyhow::Result<Self> {
        let mut document = parse(file, text)?;
        document.retain(|key, _| key == "runners");
        document.set_trailing("");
        let entry = runners(&mut document).filter(|all| all.len() == 1).and_then(|all| all.get_mut(0));
        let Some(entry) = entry else {
            return Err(anyhow!("{} must have exactly one [[runners]] entry to be a template", file.display()));
        };
        for own in ["id", "token", "token_obtained_at", "token_expires_at"] {
            entry.remove(own);
        }
        Ok(Self(document))
    }

    pub fn blank() -> Self {
        let mut document = DocumentMut::new();
        document.insert("runners", Item::ArrayOfTables([Table::new()].into_iter().collect()));
        Self(document)
    }

    fn get(&self, path: &[&str]) -> Option<&Item> {
        let entry = self.0.get("runners")?.as_array_of_tables()?.get(0)?;
        let (key, tables) = path.split_last()?;
        tables.iter().try_fold(entry as &dyn TableLike, |table, name| table.get(name)?.as_table_like())?.get(key)
    }

    pub fn has(&self, path: &[&str]) -> bool {
        self.get(path).is_some()
    }

    /// A text; an empty one counts as absent.
    pub fn text(&self, path: &[&str]) -> Option<String> {
        self.get(path)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The text of the entry with `settings` over what the template says.
    pub fn render(mut self, settings: &[Setting], given: &Given) -> anyhow::Result<String> {
        let entry = runners(&mut self.0).and_then(|all| all.get_mut(0)).context("a template without an entry")?;
        for setting in settings {
            match setting.path {
                [key] => set(entry, key, setting.value.clone()),
                [table, key] => {
                    let table = entry.entry(table).or_insert_with(|| Item::Table(Table::new()));
                    let table = table.as_table_like_mut();
                    let is_none = || format!("runners.{} of the template is not a table", setting.path[0]);
                    set(table.with_context(is_none)?, key, setting.value.clone());
                }
                deeper => return Err(anyhow!("no setting is as deep as {deeper:?}")),
            }
        }
        identify(entry, given)?;
        let rank = |key: &str| IDENTITY.iter().position(|known| *known == key).unwrap_or(IDENTITY.len());
        entry.sort_values_by(|one, _, other, _| rank(one).cmp(&rank(other)));
        Ok(self.0.to_string())
    }
}

/// The file with the entry at its end; all that was there stays as it was.
pub fn append(config_file: &Path, text: &str, entry: &str) -> anyhow::Result<String> {
    let mut document = parse(config_file, text)?;
    let in_one_line = document.get("runners").is_some_and(Item::is_value);
    let head = match (in_one_line, text.trim().is_empty()) {
        (true, _) => {
            runners(&mut document);
            document.to_string()
        }
        (false, true) => NEW_FILE.to_owned(),
        (false, false) => text.to_owned(),
    };
    let end = if head.ends_with('\n') { "" } else { "\n" };
    let text = format!("{head}{end}\n{}", entry.trim_start_matches('\n'));
    parse(config_file, &text).context("`runners` is not a list of tables there")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given {
            id: Some(7),
            token: "glrt-t1_abc".into(),
            obtained_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            expires_at: None,
        }
    }

    fn setting(path: &'static [&'static str], value: impl Into<Value>) -> Setting {
        Setting { path, value: value.into() }
    }

    fn template(text: &str) -> Template {
        Template::read(Path::new("template.toml"), text).unwrap()
    }

    #[test]
    fn an_entry_from_nothing() {
        let list: toml_edit::Array = ["subnet-1", "subnet-2"].into_iter().collect();
        let settings = [
            setting(&["executor"], "fargate"),
            setting(&["name"], "dev \"1\""),
            setting(&["url"], "https://gitlab.example.com"),
            setting(&["limit"], 3),
            setting(&["fargate", "cluster"], "ci-dev"),
            setting(&["fargate", "subnets"], list),
        ];
        let entry = Template::blank().render(&settings, &given()).unwrap();
        insta::assert_snapshot!(append(Path::new("config.toml"), "", &entry).unwrap(), @r#"
concurrent = 1
check_interval = 0

[[runners]]
name = 'dev "1"'
url = "https://gitlab.example.com"
id = 7
token = "glrt-t1_abc"
token_obtained_at = 2026-01-01T00:00:00Z
token_expires_at = 0001-01-01T00:00:00Z
executor = "fargate"
limit = 3

[runners.fargate]
cluster = "ci-dev"
subnets = ["subnet-1", "subnet-2"]
"#);
    }

    #[test]
    fn a_template_gives_what_the_settings_leave_open_with_its_comments() {
        let text = r#"# The file's head.
concurrent = 9

[session_server]
  session_timeout = 1800

# Runs in dev.
[[runners]]
  # Its name in the log.
  name = "ec2-ecs"
  token = "dropped"
  executor = "custom"
  builds_dir = "/opt/builds" # in the task
  [runners.cache]
    [runners.cache.s3]
  [runners.custom]
    run_exec = "/opt/fargate"

[feature]
"#;
        let template = template(text);
        assert_eq!(template.text(&["executor"]).as_deref(), Some("custom"));
        assert_eq!(template.text(&["url"]), None);
        let settings = [
            setting(&["url"], "https://gitlab.example.com"),
            setting(&["name"], "the description"),
            setting(&["custom", "run_exec"], "/usr/bin/fargate"),
        ];
        let entry = template.render(&settings, &given()).unwrap();
        insta::assert_snapshot!(append(Path::new("config.toml"), "# mine\nconcurrent = 4", &entry).unwrap(), @r#"
# mine
concurrent = 4

# Runs in dev.
[[runners]]
  # Its name in the log.
  name = "the description"
  url = "https://gitlab.example.com"
  id = 7
  token = "glrt-t1_abc"
  token_obtained_at = 2026-01-01T00:00:00Z
  token_expires_at = 0001-01-01T00:00:00Z
  executor = "custom"
  builds_dir = "/opt/builds" # in the task
  [runners.cache]
    [runners.cache.s3]
  [runners.custom]
    run_exec = "/usr/bin/fargate"
"#);
    }

    #[test]
    fn a_template_has_exactly_one_entry() {
        for text in ["", "concurrent = 1\n", "[[runners]]\n[[runners]]\n", "runners = 1\n", "[runners]\n"] {
            let told = Template::read(Path::new("t.toml"), text).unwrap_err().to_string();
            assert_eq!(told, "t.toml must have exactly one [[runners]] entry to be a template", "{text:?}");
        }
        template("runners = [{ name = \"a\" }]");
    }

    #[test]
    fn what_is_in_the_file_stays_byte_for_byte() {
        let entry = Template::blank().render(&[], &given()).unwrap();
        for text in ["concurrent = 1", "# only a comment\n", "concurrent=1\n\n\n[session_server]\na = 1 \n\n"] {
            let after = append(Path::new("config.toml"), text, &entry).unwrap();
            assert!(after.starts_with(text) && after.matches("[[runners]]").count() == 1, "{after}");
        }
        let after =
            append(Path::new("config.toml"), "concurrent = 1\nrunners = [{ name = \"a\" }] \n", &entry).unwrap();
        assert_eq!(after.matches("[[runners]]").count(), 2, "{after}");
        let told = append(Path::new("config.toml"), "[runners]\na = 1\n", &entry).unwrap_err().to_string();
        assert!(told.contains("not a list of tables"), "{told}");
    }
}
