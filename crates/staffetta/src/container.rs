//! What the manager's image does at its start: a configuration from the environment, for which nothing has to be built
//! into the image and no file has to be mounted.
//!
//! The token is named and not written: `config.toml` says `$RUNNER_TOKEN`, so it stays in the memory of the process.

use std::io;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::str::FromStr;

use job::secret::{ExposeSecret, SecretString};

/// The first line of a configuration that was made here. A file without it is somebody's own and is left alone.
const MADE_HERE: &str = "# Made by `staffetta container` from the environment at each start: changes are lost.\n";

/// Jobs at once: tasks cost nothing while there are no jobs, so this only bounds a mistake.
const CONCURRENT: NonZeroU32 = NonZeroU32::new(10).unwrap();
const SSH_USER: &str = "root";
const SSH_PORT: NonZeroU16 = NonZeroU16::new(22).unwrap();

/// The variables that the configuration is made of.
const NEEDED: [(&str, &str); 5] = [
    ("GITLAB_URL", "the address of GitLab, such as https://gitlab.example.com"),
    ("RUNNER_TAGS", "the runner's tags, such as dev; the names of its cluster and task definition come from them"),
    ("SUBNET", "where the tasks get their addresses, such as subnet-0123456789abcdef0; several with commas between"),
    (
        "SECURITY_GROUP_ID",
        "it lets the manager reach the tasks, such as sg-0123456789abcdef0; several with commas between",
    ),
    ("AWS_REGION", "the region of the cluster; on Fargate, ECS sets it by itself"),
];
const OPTIONAL: [&str; 5] = ["CLUSTER", "TASK_DEFINITION", "CONCURRENT", "SSH_USER", "SSH_PORT"];

/// The whole configuration, where somebody else has made it: `staffetta deploy` does so. Its tokens are in variables, which it
/// names.
const WHOLE: &str = "CONFIG_TOML";

/// The token, or the file that it is in.
pub const TOKEN: &str = "RUNNER_TOKEN";
const TOKEN_FILE: &str = "RUNNER_TOKEN_FILE";

/// What stands outside, for the rules here: variables that are empty count as not set.
pub struct Outside<'a> {
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// How the container starts.
#[derive(Debug)]
pub struct Start {
    /// To be written; none leaves the file that is there.
    pub config: Option<String>,
    /// To be handed to the manager as `RUNNER_TOKEN`, without the line end that `echo` leaves in a secret.
    pub token: Option<SecretString>,
    /// Variables that are set and say nothing, because the file that is there says all, or `CONFIG_TOML` does.
    pub without_effect: Vec<&'static str>,
}

/// Decides from the variables and from the configuration that is there already, if any. Tells all mistakes at once.
pub fn start(there: Option<&str>, outside: &Outside) -> Result<Start, Vec<String>> {
    let mut mistakes = Vec::new();
    let mounted = there.is_some_and(|text| !text.starts_with(MADE_HERE));
    let whole = (outside.environment)(WHOLE);
    let is_told = mounted || whole.is_some();
    let config = match whole {
        _ if mounted => None,
        Some(text) => Some(format!("{MADE_HERE}{text}")),
        None => Some(config_toml(outside, &mut mistakes)),
    };
    let token = token(outside, !is_told, &mut mistakes);
    if let Some(path) = (outside.environment)("CA_CERTIFICATES_PATH")
        && let Err(error) = (outside.read)(Path::new(&path))
    {
        mistakes.push(format!("CA_CERTIFICATES_PATH names {path}, which cannot be read: {error}"));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let set = |name: &&'static str| is_told && (outside.environment)(name).is_some();
    // Every AWS tool uses the region.
    let names = NEEDED.iter().map(|(name, _)| *name).filter(|name| *name != "AWS_REGION").chain(OPTIONAL);
    let names = names.chain(mounted.then_some(WHOLE));
    Ok(Start { config, token, without_effect: names.filter(set).collect() })
}

/// What it answers beside mistakes must not be used.
fn config_toml(outside: &Outside, mistakes: &mut Vec<String>) -> String {
    let [url, tags, subnets, security_groups, region] = NEEDED.map(|(name, meaning)| {
        let value = (outside.environment)(name);
        if value.as_deref().is_none_or(|value| list(value).is_empty()) {
            let state = if value.is_some() { "has nothing in it" } else { "is not set" };
            mistakes.push(format!("{name} {state}: {meaning}"));
        }
        value.unwrap_or_default()
    });
    let [cluster, task_definition, concurrent, ssh_user, ssh_port] = OPTIONAL.map(|name| (outside.environment)(name));
    let concurrent = number("CONCURRENT", concurrent, CONCURRENT, "a whole number of 1 or more", mistakes);
    let ssh_port = number("SSH_PORT", ssh_port, SSH_PORT, "a port number", mistakes);
    let name = list(&tags).join("-");
    let text = |value: String| toml::Value::from(value);
    format!(
        r#"{MADE_HERE}
concurrent = {concurrent}

[[runners]]
name = {name}
url = {url}
token = "${TOKEN}"
executor = "fargate"

[runners.fargate]
cluster = {cluster}
region = {region}
subnets = {subnets}
security_groups = {security_groups}
task_definition = {task_definition}
ssh_user = {ssh_user}
ssh_port = {ssh_port}
"#,
        cluster = text(cluster.unwrap_or_else(|| format!("acme-gitlab-{name}-cluster"))),
        task_definition = text(task_definition.unwrap_or_else(|| format!("gitlab-runner-{name}-task"))),
        ssh_user = text(ssh_user.unwrap_or_else(|| SSH_USER.into())),
        name = text(name),
        url = text(url),
        region = text(region),
        subnets = toml::Value::from(list(&subnets)),
        security_groups = toml::Value::from(list(&security_groups)),
    )
}

fn number<N: FromStr>(name: &str, value: Option<String>, default: N, wanted: &str, mistakes: &mut Vec<String>) -> N {
    let Some(value) = value else { return default };
    value.parse().unwrap_or_else(|_| {
        mistakes.push(format!("{name} must be {wanted}; it is {value:?}"));
        default
    })
}

fn list(words: &str) -> Vec<&str> {
    words.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn token(outside: &Outside, needed: bool, mistakes: &mut Vec<String>) -> Option<SecretString> {
    let given = (outside.environment)(TOKEN).map(|text| SecretString::from(text.trim()));
    match (given, (outside.environment)(TOKEN_FILE)) {
        (Some(_), Some(_)) => mistakes.push(format!("{TOKEN} and {TOKEN_FILE} are both set: leave one of them out")),
        (Some(token), None) if !token.expose_secret().is_empty() => return Some(token),
        (Some(_), None) => mistakes.push(format!("{TOKEN} has nothing in it")),
        (None, Some(path)) => match (outside.read)(Path::new(&path)) {
            Ok(text) if !text.trim().is_empty() => return Some(text.trim().into()),
            Ok(_) => mistakes.push(format!("{TOKEN_FILE} names {path}, which is empty")),
            Err(error) => mistakes.push(format!("{TOKEN_FILE} names {path}, which cannot be read: {error}")),
        },
        (None, None) if needed => mistakes.push(format!(
            "{TOKEN} is not set: the runner's token (glrt-…), injected as a secret, or in the file {TOKEN_FILE}; `staffetta \
             register` makes a runner from a registration token, once"
        )),
        (None, None) => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: [(&str, &str); 6] = [
        ("GITLAB_URL", "https://gitlab.example.com"),
        ("RUNNER_TAGS", "dev,arm"),
        ("SUBNET", "subnet-1, subnet-2"),
        ("SECURITY_GROUP_ID", "sg-1"),
        ("AWS_REGION", "eu-west-1"),
        ("RUNNER_TOKEN", "glrt-secret"),
    ];

    /// Starts with these variables, and one file, `/run/token`.
    fn started(there: Option<&str>, variables: &[(&str, &str)]) -> Result<Start, Vec<String>> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        let read = |path: &Path| match path.to_str() {
            Some("/run/token") => Ok("glrt-from-file\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        start(there, &Outside { environment: &value, read: &read })
    }

    fn made(variables: &[(&str, &str)]) -> toml::Table {
        let start = started(None, variables).expect("no mistakes");
        start.config.expect("a configuration").parse().expect("TOML")
    }

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        [more, &USUAL].concat()
    }

    #[test]
    fn the_names_come_from_the_tags_and_the_token_is_only_named() {
        let config = made(&USUAL);
        let runner = &config["runners"][0];
        assert_eq!(runner["token"].as_str(), Some("$RUNNER_TOKEN"));
        assert_eq!(runner["name"].as_str(), Some("dev-arm"));
        let fargate = &runner["fargate"];
        assert_eq!(fargate["cluster"].as_str(), Some("acme-gitlab-dev-arm-cluster"));
        assert_eq!(fargate["task_definition"].as_str(), Some("gitlab-runner-dev-arm-task"));
        assert_eq!(fargate["subnets"], toml::Value::from(vec!["subnet-1", "subnet-2"]));
        assert_eq!((fargate["ssh_user"].as_str(), fargate["ssh_port"].as_integer()), (Some("root"), Some(22)));
        assert_eq!(config["concurrent"].as_integer(), Some(10));
    }

    #[test]
    fn names_and_numbers_can_be_given() {
        let config = made(&with(&[
            ("CLUSTER", "ci"),
            ("TASK_DEFINITION", "ci:3"),
            ("CONCURRENT", "50"),
            ("SSH_USER", "ci"),
            ("SSH_PORT", "2222"),
        ]));
        let fargate = &config["runners"][0]["fargate"];
        assert_eq!((fargate["ssh_user"].as_str(), fargate["ssh_port"].as_integer()), (Some("ci"), Some(2222)));
        assert_eq!((fargate["cluster"].as_str(), fargate["task_definition"].as_str()), (Some("ci"), Some("ci:3")));
        assert_eq!(config["concurrent"].as_integer(), Some(50));
    }

    #[test]
    fn everything_that_is_missing_or_wrong_is_told_at_once() {
        let mistakes =
            started(None, &[("CONCURRENT", "+"), ("SSH_PORT", "0"), ("CA_CERTIFICATES_PATH", "/run/ca")]).unwrap_err();
        let names = NEEDED.map(|(name, _)| name);
        for name in names.into_iter().chain(["CONCURRENT", "SSH_PORT", "RUNNER_TOKEN", "CA_CERTIFICATES_PATH"]) {
            assert_eq!(mistakes.iter().filter(|mistake| mistake.starts_with(name)).count(), 1, "{name}: {mistakes:?}");
        }
    }

    #[test]
    fn a_needed_variable_of_commas_and_blanks_says_nothing() {
        for at in 0..USUAL.len() {
            let mut variables = USUAL;
            variables[at].1 = if variables[at].0 == TOKEN { " \n" } else { " ,\n" };
            let mistakes = started(None, &variables).unwrap_err();
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
            assert!(mistakes[0].starts_with(&format!("{} has nothing in it", variables[at].0)), "{mistakes:?}");
        }
    }

    #[test]
    fn a_line_end_after_the_token_is_not_handed_on() {
        let mut variables = USUAL;
        variables[5].1 = "glrt-secret\r\n";
        for there in [None, Some("concurrent = 1\n")] {
            let start = started(there, &variables).expect("no mistakes");
            assert_eq!(start.token.expect("a token").expose_secret(), "glrt-secret");
        }
    }

    #[test]
    fn a_value_cannot_become_another_key() {
        let hostile = "dev\"\nexecutor = \"shell\"\n[x]\ny = \"'''\\";
        let mut variables = USUAL;
        variables[1].1 = hostile;
        assert_eq!(made(&variables)["runners"][0]["name"].as_str(), Some(hostile));
        assert_eq!(made(&variables)["runners"][0]["executor"].as_str(), Some("fargate"));
    }

    #[test]
    fn the_token_may_be_in_a_file() {
        let mut variables = USUAL;
        variables[5] = ("RUNNER_TOKEN_FILE", "/run/token");
        let start = started(None, &variables).expect("no mistakes");
        assert_eq!(start.token.expect("a token").expose_secret(), "glrt-from-file");
        variables[5] = ("RUNNER_TOKEN_FILE", "/run/tokken");
        assert!(started(None, &variables).unwrap_err()[0].contains("/run/tokken"));
        assert!(started(None, &with(&[("RUNNER_TOKEN_FILE", "/run/token")])).unwrap_err()[0].contains("both"));
    }

    #[test]
    fn a_file_of_somebodys_own_is_left_alone_and_one_made_here_is_made_again() {
        let own = started(Some("concurrent = 1\n"), &USUAL).expect("no mistakes");
        assert!(own.config.is_none());
        assert_eq!(own.without_effect, ["GITLAB_URL", "RUNNER_TAGS", "SUBNET", "SECURITY_GROUP_ID"]);
        let ours = started(None, &USUAL).expect("no mistakes").config.expect("a configuration");
        let again = started(Some(&ours), &with(&[("CLUSTER", "new")])).expect("no mistakes");
        assert!(again.config.expect("a configuration").contains("cluster = \"new\""));
    }

    #[test]
    fn a_whole_configuration_in_a_variable_needs_nothing_else_and_a_file_wins_over_it() {
        let whole = ("CONFIG_TOML", "concurrent = 3\n");
        let start = started(None, &[whole]).expect("no mistakes");
        let written = start.config.expect("a configuration");
        assert_eq!(written.parse::<toml::Table>().expect("TOML")["concurrent"].as_integer(), Some(3));
        assert!(start.without_effect.is_empty() && start.token.is_none());
        let again = started(Some(&written), &[("CONFIG_TOML", "concurrent = 4\n")]).expect("no mistakes");
        assert!(again.config.expect("a configuration").ends_with("concurrent = 4\n"));
        let beside = started(None, &with(&[whole])).expect("no mistakes");
        assert_eq!(beside.without_effect, ["GITLAB_URL", "RUNNER_TAGS", "SUBNET", "SECURITY_GROUP_ID"]);
        assert_eq!(beside.token.expect("a token").expose_secret(), "glrt-secret");
        let own = started(Some("concurrent = 1\n"), &[whole]).expect("no mistakes");
        assert!(own.config.is_none());
        assert_eq!(own.without_effect, ["CONFIG_TOML"]);
    }

    #[test]
    fn the_manual_names_every_variable() {
        let manual = include_str!("../../../docs/images.md");
        let names = NEEDED.map(|(name, _)| name).into_iter().chain(OPTIONAL).chain([TOKEN, TOKEN_FILE, WHOLE]);
        for name in names.chain(["CA_CERTIFICATES_PATH", "CONFIG_FILE", "LISTEN_ADDRESS"]) {
            assert!(manual.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
