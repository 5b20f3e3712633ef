//! The `[[runners]]` entries of a `config.toml` as the commands see them: of any executor, and of a file that the
//! manager would refuse. Changes leave every other byte of the file as it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use gitlab::{Client, ClientConfig, Info};
use jiff::Timestamp;
use job::ids::ShortToken;
use job::secret::{ExposeSecret, SecretString};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, Value};

use super::new_version::{NewVersion, parse, read};
use crate::config;

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub url: String,
    pub token: SecretString,
    written: Written,
    /// GitLab's id of the runner, where register wrote one.
    pub id: Option<u64>,
    pub executor: String,
    pub token_expires_at: Option<Timestamp>,
    shell: String,
    tls_ca_file: Option<PathBuf>,
    tls_cert_file: Option<PathBuf>,
    tls_key_file: Option<PathBuf>,
}

/// What the file has there; `$NAME` is taken from the environment.
#[derive(Debug, Clone)]
struct Written {
    name: String,
    url: String,
    token: SecretString,
}

/// An entry that was to be changed was removed meanwhile, or has another token.
#[derive(Debug, thiserror::Error)]
#[error("runner {name:?} is no longer in {} with the token that it had", file.display())]
pub struct Gone {
    name: String,
    file: PathBuf,
}

/// A token and its times, as GitLab gave it.
#[derive(Debug)]
pub struct Given {
    pub id: Option<u64>,
    pub token: SecretString,
    pub obtained_at: Timestamp,
    /// None never expires.
    pub expires_at: Option<Timestamp>,
}

impl Entry {
    pub fn short_token(&self) -> ShortToken {
        ShortToken::of(self.token.expose_secret())
    }

    /// A token that stands in the file itself can be replaced there.
    pub fn has_token_in_file(&self) -> bool {
        !self.token.expose_secret().is_empty() && self.token.expose_secret() == self.written.token.expose_secret()
    }

    /// A slash at the end makes no other address.
    pub fn is_at(&self, url: &str) -> bool {
        self.url.trim_end_matches('/') == url.trim_end_matches('/')
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        let client = Client::new(ClientConfig {
            tls_ca_file: self.tls_ca_file.clone(),
            tls_cert_file: self.tls_cert_file.clone(),
            tls_key_file: self.tls_key_file.clone(),
            ..ClientConfig::new(&self.url, Info::new(&self.executor, &self.shell))
        });
        client.with_context(|| format!("runner {:?}", self.name))
    }
}

/// Which entries a command is about; what is not said does not choose.
#[derive(Debug, Default)]
pub struct Selection {
    pub name: Option<String>,
    pub url: Option<String>,
    pub token: Option<SecretString>,
}

impl Selection {
    /// None is an error: a name with a slip must not look like success.
    pub fn of(self, all: Vec<Entry>) -> anyhow::Result<Vec<Entry>> {
        let names = all.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ");
        let is_selected = |entry: &Entry| {
            self.name.as_ref().is_none_or(|name| *name == entry.name)
                && self.url.as_ref().is_none_or(|url| entry.is_at(url))
                && self.token.as_ref().is_none_or(|token| token.expose_secret() == entry.token.expose_secret())
        };
        let selected: Vec<_> = all.into_iter().filter(is_selected).collect();
        if selected.is_empty() {
            return Err(anyhow!(
                "no such runner is in the file; it has {}",
                if names.is_empty() { "none" } else { &names }
            ));
        }
        Ok(selected)
    }
}

/// All entries of a file, in its order. A file that is not there is an error.
pub fn load(config_file: &Path) -> anyhow::Result<Vec<Entry>> {
    if !config_file.exists() {
        return Err(anyhow!("{} does not exist; `staffetta register` makes one", config_file.display()));
    }
    let mut entries = entries(&parse(config_file, &read(config_file)?)?, &|name| std::env::var(name).ok());
    for entry in &mut entries {
        let beside = config::Certificates::beside(config_file, &entry.url);
        entry.tls_ca_file = entry.tls_ca_file.take().or(beside.ca);
        if let (None, Some((cert, key))) = (&entry.tls_cert_file, beside.client) {
            (entry.tls_cert_file, entry.tls_key_file) = (Some(cert), Some(key));
        }
    }
    Ok(entries)
}

/// The pure part: `environment` answers for `$NAME`. What cannot be read counts as absent: this is for a file's
/// owner, who asks for the list of what is there.
pub fn entries(document: &DocumentMut, environment: &dyn Fn(&str) -> Option<String>) -> Vec<Entry> {
    let tables = document.get("runners").map(tables).unwrap_or_default();
    tables.into_iter().map(|table| entry(table, environment)).collect()
}

fn tables(item: &Item) -> Vec<&dyn TableLike> {
    match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
        Item::Value(Value::Array(list)) => {
            list.iter().filter_map(Value::as_inline_table).map(|table| table as &dyn TableLike).collect()
        }
        _ => Vec::new(),
    }
}

fn entry(table: &dyn TableLike, environment: &dyn Fn(&str) -> Option<String>) -> Entry {
    let text = |key: &str| table.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
    let path = |key: &str| Some(text(key)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let expanded = |key: &str| config::expand(&text(key), environment).0;
    let token = expanded("token");
    let written = Written { name: text("name"), url: text("url"), token: text("token").into() };
    let date = |key: &str| table.get(key).and_then(Item::as_datetime).and_then(|date| date.to_string().parse().ok());
    Entry {
        name: if written.name.is_empty() { ShortToken::of(&token).as_str().to_owned() } else { written.name.clone() },
        url: expanded("url"),
        token: token.into(),
        written,
        id: table.get("id").and_then(Item::as_integer).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0),
        executor: text("executor"),
        // The year 1 is GitLab's way to write "never".
        token_expires_at: date("token_expires_at").filter(|date: &Timestamp| *date > Timestamp::UNIX_EPOCH),
        shell: text("shell"),
        tls_ca_file: path("tls-ca-file"),
        tls_cert_file: path("tls-cert-file"),
        tls_key_file: path("tls-key-file"),
    }
}

/// Takes entries out of the file, each with the comments above it.
pub fn remove(config_file: &Path, gone: &[Entry]) -> anyhow::Result<()> {
    NewVersion::of(config_file)?.write(|text| {
        let mut document = parse(config_file, text)?;
        if let Some(runners) = runners(&mut document) {
            runners.retain(|table| !gone.iter().any(|entry| is_entry(table, entry)));
        }
        Ok(document.to_string())
    })
}

/// Writes a new token over the one of `entry`, with its times. `place` was taken before GitLab gave it. An entry without
/// a name is called by its token: the old one's becomes its name, for the runner's jobs and tasks are known by that.
pub fn replace_token(place: NewVersion, config_file: &Path, entry: &Entry, given: &Given) -> anyhow::Result<()> {
    place.write(|text| {
        let mut document = parse(config_file, text)?;
        let found = find(&mut document, config_file, entry)?;
        if text_of(found, "name").is_empty() {
            set(found, "name", entry.name.as_str().into());
        }
        identify(found, given)?;
        Ok(document.to_string())
    })
}

/// [`Gone`] if the file has the entry's token no more.
pub fn check_there(config_file: &Path, entry: &Entry) -> anyhow::Result<()> {
    find(&mut parse(config_file, &read(config_file)?)?, config_file, entry)?;
    Ok(())
}

/// The entry, or else the one that has its token: name and URL may have been edited since.
fn find<'a>(document: &'a mut DocumentMut, config_file: &Path, entry: &Entry) -> Result<&'a mut Table, Gone> {
    let found = runners(document).and_then(|runners| {
        let place = |is: fn(&Table, &Entry) -> bool| runners.iter().position(|table| is(table, entry));
        let place = place(is_entry).or_else(|| place(has_token_of))?;
        runners.get_mut(place)
    });
    found.ok_or_else(|| Gone { name: entry.name.clone(), file: config_file.to_owned() })
}

/// `runners` of a file that is written in one line is spread out: an entry has tables of its own.
pub fn runners(document: &mut DocumentMut) -> Option<&mut ArrayOfTables> {
    let item = document.get_mut("runners")?;
    if !item.is_array_of_tables() {
        let spread = std::mem::take(item).into_array_of_tables().unwrap_or_else(|_| ArrayOfTables::new());
        *item = Item::ArrayOfTables(spread);
        // The space before the equals sign that is gone.
        if let Some(mut key) = document.key_mut("runners") {
            key.leaf_decor_mut().set_suffix("");
        }
    }
    document.get_mut("runners")?.as_array_of_tables_mut()
}

fn is_entry(table: &Table, entry: &Entry) -> bool {
    let Written { name, url, .. } = &entry.written;
    has_token_of(table, entry) && text_of(table, "name") == name && text_of(table, "url") == url
}

fn has_token_of(table: &Table, entry: &Entry) -> bool {
    text_of(table, "token") == entry.written.token.expose_secret()
}

fn text_of<'a>(table: &'a Table, key: &str) -> &'a str {
    table.get(key).and_then(Item::as_str).unwrap_or_default()
}

/// Sets what GitLab gave, as `gitlab-runner` writes it.
pub fn identify(table: &mut Table, given: &Given) -> anyhow::Result<()> {
    if let Some(id) = given.id {
        set(table, "id", i64::try_from(id)?.into());
    }
    set(table, "token", given.token.expose_secret().into());
    set(table, "token_obtained_at", date(given.obtained_at)?);
    let never = Timestamp::from_second(-62_135_596_800)?;
    set(table, "token_expires_at", date(given.expires_at.unwrap_or(never))?);
    Ok(())
}

/// Whole seconds, in UTC.
fn date(time: Timestamp) -> anyhow::Result<Value> {
    let text = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let date: toml_edit::Datetime = text.parse().with_context(|| format!("{text} is no date that TOML knows"))?;
    Ok(date.into())
}

/// A value in the place of the old one, comments beside it kept; a new key is indented like the first one.
pub fn set(table: &mut dyn TableLike, key: &str, mut value: Value) {
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
        return;
    }
    let first = table.iter().next().map(|(first, _)| first.to_owned());
    let indent = first.and_then(|first| {
        let prefix = table.key(&first)?.leaf_decor().prefix()?.as_str()?;
        Some(prefix.rsplit('\n').next()?.to_owned())
    });
    table.insert(key, value.into());
    if let (Some(indent), Some(mut key)) = (indent, table.key_mut(key)) {
        key.leaf_decor_mut().set_prefix(indent);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FILE: &str = r#"# Ours.
concurrent = 4   # for three environments

# The first.
[[runners]]
  # Who it is.
  name = "dev"
  url = "https://gitlab.example.com"
  id = 7
  token = "glrt-t1_devdevdevdev" # from the wiki
  token_obtained_at = 2026-01-01T00:00:00Z
  token_expires_at = 0001-01-01T00:00:00Z
  executor = "custom"
  [runners.custom]
    run_exec = "/opt/fargate" # the driver

# The second.
[[runners]]
name = "prod"
url = "https://$HOST"
token = "$PROD_TOKEN"
token_expires_at = 2026-07-01T00:00:00Z
executor = "fargate"

[session_server]
session_timeout = 1800
"#;

    fn environment(name: &str) -> Option<String> {
        Some(format!("value-of-{name}"))
    }

    fn in_file(change: impl FnOnce(&Path, &[Entry])) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, FILE).unwrap();
        let entries = entries(&FILE.parse().unwrap(), &environment);
        change(&file, &entries);
        fs::read_to_string(&file).unwrap()
    }

    #[test]
    fn entries_of_every_executor_are_seen() {
        let entries = entries(&FILE.parse().unwrap(), &environment);
        let [dev, prod] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((dev.name.as_str(), dev.id, dev.executor.as_str()), ("dev", Some(7), "custom"));
        assert_eq!((dev.token_expires_at, dev.has_token_in_file()), (None, true));
        assert_eq!((prod.url.as_str(), prod.token.expose_secret()), ("https://value-of-HOST", "value-of-PROD_TOKEN"));
        assert_eq!(prod.token_expires_at.unwrap().to_string(), "2026-07-01T00:00:00Z");
        assert!(!prod.has_token_in_file(), "it cannot be replaced in the file");
        assert!(!format!("{entries:?}").contains("devdevdev"));
    }

    #[test]
    fn a_new_token_changes_its_own_lines_only() {
        let given = Given {
            id: Some(8),
            token: "glrt-new".into(),
            obtained_at: "2026-02-01T10:00:00.5Z".parse().unwrap(),
            expires_at: Some("2026-03-01T00:00:00Z".parse().unwrap()),
        };
        let text = in_file(|file, entries| {
            replace_token(NewVersion::of(file).unwrap(), file, &entries[0], &given).unwrap();
        });
        let expected = FILE
            .replace("id = 7", "id = 8")
            .replace("glrt-t1_devdevdevdev", "glrt-new")
            .replace("2026-01-01T00:00:00Z", "2026-02-01T10:00:00Z")
            .replace("0001-01-01T00:00:00Z", "2026-03-01T00:00:00Z");
        assert_eq!(text, expected);
    }

    #[test]
    fn an_entry_without_times_gets_them_in_its_own_manner() {
        let given = Given { id: None, token: "t".into(), obtained_at: Timestamp::UNIX_EPOCH, expires_at: None };
        let mut document: DocumentMut =
            "[[runners]]\n  # note\n  token = \"old\"\n  [runners.custom]\n".parse().unwrap();
        identify(runners(&mut document).unwrap().get_mut(0).unwrap(), &given).unwrap();
        assert_eq!(
            document.to_string(),
            "[[runners]]\n  # note\n  token = \"t\"\n  token_obtained_at = 1970-01-01T00:00:00Z\n  \
             token_expires_at = 0001-01-01T00:00:00Z\n  [runners.custom]\n"
        );
    }

    #[test]
    fn a_removed_entry_takes_its_own_comments_and_tables_along() {
        let text = in_file(|file, entries| remove(file, &entries[..1]).unwrap());
        let (head, rest) = FILE.split_once("\n# The first.").unwrap();
        assert_eq!(text, format!("{head}{}", &rest[rest.find("\n# The second.").unwrap()..]));
        let text = in_file(|file, entries| remove(file, entries).unwrap());
        assert!(
            text.starts_with("# Ours.\nconcurrent = 4") && text.ends_with("[session_server]\nsession_timeout = 1800\n")
        );
        assert!(!text.contains("runners"), "{text}");
    }

    #[test]
    fn an_entry_without_a_name_keeps_the_one_that_its_old_token_gave_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, "[[runners]]\n  url = \"https://h\"\n  token = \"glrt-t1_oldoldold1\"\n").unwrap();
        let before = load(&file).unwrap().remove(0);
        let given = Given { id: None, token: "glrt-new".into(), obtained_at: Timestamp::UNIX_EPOCH, expires_at: None };
        replace_token(NewVersion::of(&file).unwrap(), &file, &before, &given).unwrap();
        let after = load(&file).unwrap().remove(0);
        assert_eq!((after.name, after.token.expose_secret()), (before.name, "glrt-new"));
    }

    #[test]
    fn of_two_entries_with_one_token_only_the_one_that_is_meant_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        let entry = |name: &str, host: &str| {
            format!("[[runners]]\nname = \"{name}\"\nurl = \"https://{host}\"\ntoken = \"same\"\n")
        };
        let texts = [entry("a", "one"), entry("a", "two"), entry("b", "one")];
        fs::write(&file, texts.concat()).unwrap();
        remove(&file, &load(&file).unwrap()[1..2]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), [&texts[0][..], &texts[2]].concat());
    }

    #[test]
    fn a_new_token_finds_an_entry_whose_name_was_edited_meanwhile() {
        let text = in_file(|file, entries| {
            fs::write(file, FILE.replace("\"dev\"", "\"development\"")).unwrap();
            let given = Given { id: None, token: "z".into(), obtained_at: Timestamp::UNIX_EPOCH, expires_at: None };
            replace_token(NewVersion::of(file).unwrap(), file, &entries[0], &given).unwrap();
        });
        assert!(text.contains("name = \"development\"") && text.contains("token = \"z\" # from the wiki"), "{text}");
    }

    #[test]
    fn an_entry_that_is_gone_meanwhile_is_told() {
        in_file(|file, entries| {
            remove(file, &entries[..1]).unwrap();
            let given = Given { id: None, token: "t".into(), obtained_at: Timestamp::UNIX_EPOCH, expires_at: None };
            let told = replace_token(NewVersion::of(file).unwrap(), file, &entries[0], &given).unwrap_err();
            assert!(told.is::<Gone>() && told.to_string().contains("runner \"dev\" is no longer in"), "{told}");
        });
    }

    #[test]
    fn runners_in_one_line_are_seen_and_changed() {
        let text = "runners = [{ name = \"a\", token = \"x\" }, { name = \"b\", token = \"y\" }]\n";
        let mut document: DocumentMut = text.parse().unwrap();
        assert_eq!(entries(&document, &environment).len(), 2);
        let given = Given { id: None, token: "z".into(), obtained_at: Timestamp::UNIX_EPOCH, expires_at: None };
        identify(runners(&mut document).unwrap().get_mut(1).unwrap(), &given).unwrap();
        let again = entries(&document.to_string().parse().unwrap(), &environment);
        assert_eq!((again[0].token.expose_secret(), again[1].token.expose_secret()), ("x", "z"));
    }
}
