//! The variables of one job: where they come from, which wins, what they expand to (protocol section 8).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use crate::expansion::{expand_text, expand_variables};
use crate::flags::Flags;
use crate::hand_over::{GitLabAccess, ResolvedSecret, RunnerSettings};
use crate::payload::{Payload, Variable};
use crate::secret::{ExposeSecret, SecretString};
use crate::trace::TraceSettings;

/// All variables of a job, expanded. Their order is their precedence: the last of a name wins.
#[derive(Clone)]
pub struct Variables {
    list: Vec<Variable>,
    flags: Flags,
    project_dir: String,
    /// What the job's author should know about values that were not understood.
    pub warnings: Vec<String>,
    /// A setting of the job that a runner must refuse: the job fails as wrongly configured.
    pub refused: Option<String>,
}

impl Variables {
    /// Puts a job's list together. `gitlab` gives the certificates that the job sees as files.
    pub fn resolve(
        payload: &Payload,
        runner: &RunnerSettings,
        gitlab: &GitLabAccess,
        secrets: &[ResolvedSecret],
    ) -> Self {
        let flags = Flags::resolve(payload, runner);
        let resolve_in = |project_dir| Self::resolve_in(project_dir, flags.clone(), payload, runner, gitlab, secrets);
        let mut variables = resolve_in(default_project_dir(payload, runner));
        if variables.refused.is_some() {
            return variables;
        }
        let Some(path) = variables.get("GIT_CLONE_PATH").filter(|path| !path.is_empty()) else { return variables };
        let refused = if !runner.custom_build_dir {
            "setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature".to_owned()
        } else if !is_inside(&path, &runner.builds_dir) {
            format!("the GIT_CLONE_PATH={path:?} has to be within {:?}", runner.builds_dir)
        } else {
            return resolve_in(path.trim_end_matches('/').to_owned());
        };
        variables.refused = Some(refused);
        variables
    }

    fn resolve_in(
        project_dir: String,
        flags: Flags,
        payload: &Payload,
        runner: &RunnerSettings,
        gitlab: &GitLabAccess,
        secrets: &[ResolvedSecret],
    ) -> Self {
        let mut list = Vec::new();
        let mut set = |key: &str, value: &str| list.push(internal(key, value));

        for (name, on) in flags.iter() {
            set(name, if on { "true" } else { "false" });
        }
        if let Some(image) = payload.image.as_ref().filter(|image| !image.name.is_empty()) {
            set("CI_JOB_IMAGE", &image.name);
        }
        set("CI_RUNNER_SHORT_TOKEN", runner.short_token.as_str());
        for entry in &runner.environment {
            if let Some((key, value)) = entry.split_once('=') {
                set(key, value);
            }
        }
        set("CI_BUILDS_DIR", &runner.builds_dir);
        set("CI_PROJECT_DIR", &project_dir);
        set("CI_CONCURRENT_ID", &runner.concurrent_id.to_string());
        set("CI_CONCURRENT_PROJECT_ID", &runner.concurrent_project_id.to_string());
        set("CI_SERVER", "yes");
        set("CI_JOB_STATUS", "running");
        set("CI_JOB_TIMEOUT", &payload.timeout_seconds().to_string());
        list.extend(certificates(gitlab));
        list.extend(payload.variables.iter().filter(|variable| !flags.contains(&variable.key)).cloned());
        let mut set = |key: &str, value: &str| list.push(internal(key, value));
        set("CI_DISPOSABLE_ENVIRONMENT", "true");
        set("CI_RUNNER_VERSION", crate::VERSION);
        set("CI_RUNNER_REVISION", "HEAD");
        set("CI_RUNNER_EXECUTABLE_ARCH", &platform());
        list.extend(secrets.iter().map(|secret| Variable {
            key: secret.key.clone(),
            value: secret.value.expose_secret().to_owned(),
            file: secret.file,
            masked: true,
            raw: true,
            public: false,
        }));
        list.push(internal("RUNNER_TEMP_PROJECT_DIR", &temporary_dir(&project_dir)));
        if flags.on("FF_NETWORK_PER_BUILD") {
            list.push(internal("CI_BUILD_NETWORK_NAME", &network_name(payload, runner)));
        }

        let mut warnings = flags.warnings.clone();
        let temporary_dir = temporary_dir(&project_dir);
        // If they stay as they are, what is masked stays so in what is still told of the job.
        let expanded = expand_variables(&mut list, |file| file_path(&temporary_dir, file));
        let refused = expanded.err().map(|error| error.to_string());
        let list = passable(list, &mut warnings);
        Self { list, flags, project_dir, warnings, refused }
    }

    /// Where the repository is checked out.
    pub fn project_dir(&self) -> &str {
        &self.project_dir
    }

    /// Beside the checkout: file variables, scripts and git's settings; never part of an artifact.
    pub fn temporary_dir(&self) -> String {
        temporary_dir(&self.project_dir)
    }

    /// The value as a script sees it: for a file variable its path.
    pub fn get(&self, key: &str) -> Option<String> {
        self.find(key).map(Cow::into_owned)
    }

    fn find(&self, key: &str) -> Option<Cow<'_, str>> {
        self.list.iter().rfind(|variable| variable.key == key).map(|variable| self.seen(variable))
    }

    fn seen<'a>(&self, variable: &'a Variable) -> Cow<'a, str> {
        if variable.file { file_path(&self.temporary_dir(), &variable.key).into() } else { (&variable.value).into() }
    }

    /// Whether a feature flag of GitLab's runner is on; a name that is no flag is off.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.on(name)
    }

    /// For the head of the log (protocol 4.10).
    pub fn unusual_flags(&self) -> String {
        self.flags.unusual()
    }

    /// What a stage exports, once per name; `status` is the `CI_JOB_STATUS` of that stage.
    pub fn exports(&self, status: &str) -> BTreeMap<String, String> {
        let mut exports: BTreeMap<String, String> =
            self.list.iter().map(|variable| (variable.key.clone(), self.seen(variable).into_owned())).collect();
        exports.insert("CI_JOB_STATUS".into(), status.into());
        exports
    }

    /// The files that must exist before a stage runs: path and content.
    pub fn files(&self) -> BTreeMap<String, SecretString> {
        let mut files = BTreeMap::new();
        for variable in &self.list {
            let path = file_path(&self.temporary_dir(), &variable.key);
            // A later variable of the same name that is no file takes the file's place.
            match variable.file {
                true => files.insert(path, SecretString::from(variable.value.clone())),
                false => files.remove(&path),
            };
        }
        files
    }

    /// What must not stand in the trace: every masked value, also of a variable that a later one hides,
    /// and the job's own token.
    fn masked(&self, payload: &Payload) -> Vec<SecretString> {
        let masked = self.list.iter().filter(|variable| variable.masked).map(|variable| variable.value.as_str());
        let mut seen = HashSet::new();
        masked
            .chain([payload.token.expose_secret()])
            .map(str::trim)
            .filter(|value| !value.is_empty() && seen.insert(value.to_owned()))
            .map(SecretString::from)
            .collect()
    }

    /// How the job's trace is written; manager and agent must agree, since one continues the other's.
    pub fn trace_settings(&self, payload: &Payload, runner: &RunnerSettings) -> TraceSettings {
        TraceSettings {
            timestamps: self.flag("FF_TIMESTAMPS"),
            output_limit: runner.output_limit,
            masked: self.masked(payload),
            token_prefixes: payload.features.token_mask_prefixes.clone(),
            mask_default_tokens: self.flag("FF_MASK_ALL_DEFAULT_TOKENS"),
        }
    }

    /// One pass over a text that is not itself a variable, such as the script of a `release` step. One that would become
    /// too long stays as it is.
    pub fn expand(&self, text: &str) -> String {
        expand_text(text, |name| self.find(name).unwrap_or_default())
    }
}

/// What GitLab sent of a job's variables, expanded among themselves unless they would become too long: all that is known
/// where the runner's settings are not. A file variable is its content.
pub fn of_payload(payload: &Payload) -> BTreeMap<String, String> {
    let mut variables = payload.variables.clone();
    // What would become too long stays as it is.
    let _ = expand_variables(&mut variables, |file| file_path("", file));
    variables.into_iter().map(|variable| (variable.key, variable.value)).collect()
}

fn internal(key: &str, value: &str) -> Variable {
    Variable { key: key.into(), value: value.into(), public: true, ..Variable::default() }
}

/// What stands between the runner and GitLab, for programs of the job that talk to GitLab too (protocol 0.6).
fn certificates(gitlab: &GitLabAccess) -> impl Iterator<Item = Variable> {
    let pem = |key, pem: &str| Variable { file: true, raw: true, ..internal(key, pem) };
    let authority = gitlab.tls_ca.as_deref().map(|text| pem("CI_SERVER_TLS_CA_FILE", text));
    let client = gitlab.tls_client.iter().flat_map(move |client| {
        let key = pem("CI_SERVER_TLS_KEY_FILE", client.key.expose_secret());
        [pem("CI_SERVER_TLS_CERT_FILE", &client.certificate), Variable { public: false, ..key }]
    });
    authority.into_iter().chain(client)
}

/// What a process can be given. GitLab's runner writes its scripts with the name or the value in them: the shell then
/// ends the job over a name that is none, and reads a value only up to its first NUL.
fn passable(mut list: Vec<Variable>, warnings: &mut Vec<String>) -> Vec<Variable> {
    list.retain_mut(|variable| {
        let key = &variable.key;
        if key.is_empty() || key.contains(['=', '\0']) {
            warnings.push(format!("the variable {key:?} is left out: no program can have one of that name"));
            return false;
        }
        let identifier = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !key.chars().all(identifier) || key.starts_with(|c: char| c.is_ascii_digit()) {
            warnings.push(format!("the variable {key:?} has a name that no shell can read; other programs can"));
        }
        if let (false, Some(end)) = (variable.file, variable.value.find('\0')) {
            warnings.push(format!("the value of the variable {key:?} ends at its first NUL"));
            variable.value.truncate(end);
        }
        true
    });
    list
}

/// The network belongs to the task alone anyway; scripts may use the name for others of their own.
fn network_name(payload: &Payload, runner: &RunnerSettings) -> String {
    let (project, number) = (payload.job_info.project_id, runner.concurrent_project_id);
    let name = format!("runner-{}-{project}-{number}-{}", runner.short_token.as_str(), payload.id);
    name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "")
}

/// `<builds_dir>/<group/project>`: a task runs one job, so no two jobs share the path (protocol 7.8).
fn default_project_dir(payload: &Payload, runner: &RunnerSettings) -> String {
    format!("{}/{}", runner.builds_dir.trim_end_matches('/'), project_path(payload))
}

/// What the project's directories in `builds_dir` and `cache_dir` are called.
pub fn project_path(payload: &Payload) -> String {
    let url = payload.git_info.repo_url.expose_secret();
    let after_host = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = after_host.split(['?', '#']).next().unwrap_or("").trim_matches('/').trim_end_matches(".git");
    let usable = !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let path = if usable { path.to_owned() } else { format!("project-{}", payload.job_info.project_id) };
    let suffix = if payload.variable("GIT_STRATEGY") == Some("empty") { "-empty" } else { "" };
    format!("{path}{suffix}")
}

fn temporary_dir(project_dir: &str) -> String {
    format!("{project_dir}.tmp")
}

fn file_path(temporary_dir: &str, key: &str) -> String {
    // A name with a slash would leave the directory.
    format!("{temporary_dir}/{}", key.replace('/', "_"))
}

fn is_inside(path: &str, root: &str) -> bool {
    let root = format!("{}/", root.trim_end_matches('/'));
    path.starts_with(&root) && path.len() > root.len() && !path.split('/').any(|part| part == "..")
}

/// `linux/amd64`, as GitLab's runner says it.
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, architecture())
}

/// In Go's words, which GitLab shows.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// As GitLab's runner reads a boolean: Go's words in any case; empty is no answer.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hand_over::ClientCertificate;
    use crate::ids::{ShortToken, SystemId};
    use crate::payload::{Image, Received};

    pub(crate) fn runner() -> RunnerSettings {
        RunnerSettings {
            name: "dev".into(),
            short_token: ShortToken::new("abcdefghi"),
            system_id: SystemId::new("s_0123456789ab"),
            builds_dir: "/builds".into(),
            cache_dir: "/cache".into(),
            environment: Vec::new(),
            feature_flags: BTreeMap::new(),
            output_limit: 4 << 20,
            shell: String::new(),
            pre_get_sources_script: String::new(),
            post_get_sources_script: String::new(),
            pre_build_script: String::new(),
            post_build_script: String::new(),
            clone_url: String::new(),
            custom_build_dir: true,
            safe_directory_checkout: true,
            clean_git_config: None,
            get_sources_timeout: None,
            artifact_upload_timeout: 3600,
            artifact_response_header_timeout: 600,
            debug_trace_disabled: false,
            final_update_retries: 10,
            concurrent_id: 3,
            concurrent_project_id: 1,
        }
    }

    pub(crate) fn gitlab() -> GitLabAccess {
        GitLabAccess { url: "https://gitlab.example.com".into(), tls_ca: None, tls_client: None, correlation_id: None }
    }

    pub(crate) fn payload(variables: &str) -> Payload {
        let body = format!(
            r#"{{"id":1,"token":"job-token","job_info":{{"project_id":12}},
                "git_info":{{"repo_url":"https://gitlab-ci-token:x@gitlab.example.com/grp/sub/app.git"}},
                "variables":{variables}}}"#
        );
        Received::parse(body.as_bytes()).expect("a payload").payload
    }

    fn resolve(variables: &str) -> Variables {
        Variables::resolve(&payload(variables), &runner(), &gitlab(), &[])
    }

    #[test]
    fn the_project_is_checked_out_under_its_own_path() {
        let variables = resolve("[]");
        assert_eq!(variables.project_dir(), "/builds/grp/sub/app");
        assert_eq!(variables.get("CI_PROJECT_DIR").as_deref(), Some("/builds/grp/sub/app"));
        assert_eq!(variables.get("RUNNER_TEMP_PROJECT_DIR").as_deref(), Some("/builds/grp/sub/app.tmp"));
        assert_eq!(variables.get("CI_CONCURRENT_ID").as_deref(), Some("3"));
    }

    #[test]
    fn a_repository_without_a_usable_path_falls_back_to_the_project_id() {
        for url in ["", "nonsense", "https://host/", "https://host/../../etc.git"] {
            let mut payload = payload("[]");
            payload.git_info.repo_url = url.into();
            let variables = Variables::resolve(&payload, &runner(), &gitlab(), &[]);
            assert_eq!(variables.project_dir(), "/builds/project-12", "{url}");
        }
    }

    #[test]
    fn the_clone_path_must_lie_inside_the_builds_directory() {
        let chosen = resolve(r#"[{"key":"GIT_CLONE_PATH","value":"$CI_BUILDS_DIR/go/$CI_CONCURRENT_ID"}]"#);
        assert_eq!(chosen.project_dir(), "/builds/go/3");
        assert_eq!(chosen.get("CI_PROJECT_DIR").as_deref(), Some("/builds/go/3"));
        for outside in ["/etc", "/builds", "/builds/../etc", "/buildsx/a"] {
            let variables = format!(r#"[{{"key":"GIT_CLONE_PATH","value":"{outside}"}}]"#);
            let refused = Variables::resolve(&payload(&variables), &runner(), &gitlab(), &[]).refused.expect(outside);
            assert!(refused.contains(outside), "{refused}");
        }
    }

    #[test]
    fn the_job_beats_the_runners_environment_but_not_what_the_runner_says_of_itself() {
        let mut runner = runner();
        runner.environment = vec!["A=runner".into(), "B=runner".into()];
        let variables = payload(
            r#"[{"key":"A","value":"job"},{"key":"FF_SCRIPT_SECTIONS","value":"1"},{"key":"CI_SERVER","value":"no"},
               {"key":"CI_RUNNER_VERSION","value":"9"},{"key":"RUNNER_TEMP_PROJECT_DIR","value":"/"}]"#,
        );
        let variables = Variables::resolve(&variables, &runner, &gitlab(), &[]);
        for (name, value) in [
            ("A", "job"),
            ("B", "runner"),
            ("CI_SERVER", "no"),
            ("CI_RUNNER_VERSION", crate::VERSION),
            ("RUNNER_TEMP_PROJECT_DIR", "/builds/grp/sub/app.tmp"),
            // As it was understood, not as it was written.
            ("FF_SCRIPT_SECTIONS", "true"),
            ("FF_TIMESTAMPS", "true"),
        ] {
            assert_eq!(variables.get(name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn everything_that_a_runner_sets_is_there() {
        let mut payload = payload(r#"[{"key":"FF_NETWORK_PER_BUILD","value":"true"}]"#);
        payload.image = Some(Image { name: "alpine".into(), ..Image::default() });
        let client = ClientCertificate { certificate: "CERT".into(), key: "KEY".into() };
        let gitlab = GitLabAccess { tls_ca: Some("PEM".into()), tls_client: Some(client), ..gitlab() };
        let variables = Variables::resolve(&payload, &runner(), &gitlab, &[]);
        let platform = platform();
        for (name, value) in [
            ("CI_JOB_IMAGE", "alpine"),
            ("CI_RUNNER_SHORT_TOKEN", "abcdefghi"),
            ("CI_BUILDS_DIR", "/builds"),
            ("CI_PROJECT_DIR", "/builds/grp/sub/app"),
            ("CI_CONCURRENT_ID", "3"),
            ("CI_CONCURRENT_PROJECT_ID", "1"),
            ("CI_SERVER", "yes"),
            ("CI_JOB_STATUS", "running"),
            ("CI_JOB_TIMEOUT", "7200"),
            ("CI_SERVER_TLS_CA_FILE", "/builds/grp/sub/app.tmp/CI_SERVER_TLS_CA_FILE"),
            ("CI_SERVER_TLS_CERT_FILE", "/builds/grp/sub/app.tmp/CI_SERVER_TLS_CERT_FILE"),
            ("CI_SERVER_TLS_KEY_FILE", "/builds/grp/sub/app.tmp/CI_SERVER_TLS_KEY_FILE"),
            ("CI_DISPOSABLE_ENVIRONMENT", "true"),
            ("CI_RUNNER_VERSION", crate::VERSION),
            ("CI_RUNNER_REVISION", "HEAD"),
            ("CI_RUNNER_EXECUTABLE_ARCH", &platform),
            ("RUNNER_TEMP_PROJECT_DIR", "/builds/grp/sub/app.tmp"),
            ("CI_BUILD_NETWORK_NAME", "runner-abcdefghi-12-1-1"),
        ] {
            assert_eq!(variables.get(name).as_deref(), Some(value), "{name}");
        }
        let exports = variables.exports("running");
        assert!(crate::flags::FLAGS.iter().all(|flag| exports.contains_key(flag.name)));
        assert!(!exports.contains_key("CI_SHARED_ENVIRONMENT"));
    }

    #[test]
    fn names_and_values_that_no_process_can_have_are_told() {
        let variables = resolve(
            r#"[{"key":"","value":"x"},{"key":"A=B","value":"x"},{"key":"a.b","value":"x"},{"key":"1A","value":"x"},
               {"key":"NUL","value":"ab\u0000cd"},{"key":"FILE","value":"ab\u0000cd","file":true},{"key":"LINES","value":"a\nb\n"}]"#,
        );
        let exports = variables.exports("running");
        assert!(!exports.contains_key("") && !exports.contains_key("A=B"));
        for (name, value) in [("a.b", "x"), ("1A", "x"), ("NUL", "ab"), ("LINES", "a\nb\n")] {
            assert_eq!(exports[name], value, "{name}");
        }
        assert_eq!(variables.files()["/builds/grp/sub/app.tmp/FILE"].expose_secret(), "ab\0cd");
        let told =
            ["left out", "left out", "\"a.b\" has a name that no shell", "\"1A\" has", "\"NUL\" ends at its first NUL"];
        assert_eq!(variables.warnings.len(), told.len(), "{:#?}", variables.warnings);
        for (warning, told) in variables.warnings.iter().zip(told) {
            assert!(warning.contains(told), "{warning}");
        }
    }

    #[test]
    fn expansion_is_one_pass_over_unexpanded_values() {
        let variables = resolve(
            r#"[{"key":"A","value":"a"},{"key":"B","value":"<$A>"},{"key":"C","value":"$B"},{"key":"R","value":"$A","raw":true},
               {"key":"FROM_RAW","value":"${R}!"},{"key":"F","value":"content $A","file":true},{"key":"PATH_OF_F","value":"$F"}]"#,
        );
        assert_eq!(variables.get("B").as_deref(), Some("<a>"));
        assert_eq!(variables.get("C").as_deref(), Some("<$A>"));
        assert_eq!(variables.get("R").as_deref(), Some("$A"));
        assert_eq!(variables.get("FROM_RAW").as_deref(), Some("$A!"));
        assert_eq!(variables.get("PATH_OF_F").as_deref(), Some("/builds/grp/sub/app.tmp/F"));
        let files = variables.files();
        assert_eq!(files["/builds/grp/sub/app.tmp/F"].expose_secret(), "content a");
    }

    #[test]
    fn a_job_whose_variables_would_become_too_long_is_refused_and_keeps_its_masks() {
        let references = "$A".repeat(4000);
        let list = payload(&format!(
            r#"[{{"key":"A","value":"{}"}},{{"key":"B","value":"{references}","masked":true}},{{"key":"GIT_CLONE_PATH","value":"/etc"}}]"#,
            "x".repeat(10_000)
        ));
        let variables = Variables::resolve(&list, &runner(), &gitlab(), &[]);
        let refused = variables.refused.as_deref().expect("a refusal");
        assert!(refused.contains("8 MiB"), "{refused}");
        assert_eq!(variables.get("B").as_deref(), Some(references.as_str()));
        let masked = variables.trace_settings(&list, &runner()).masked;
        assert!(masked.iter().any(|value| value.expose_secret() == references));
        assert_eq!(of_payload(&list)["B"], references);
    }

    #[test]
    fn masked_values_are_those_after_expansion_and_the_jobs_token() {
        let list = payload(
            r#"[{"key":"S","value":" hunter2 \n","masked":true},{"key":"S","value":"over$P","masked":true},{"key":"P","value":"pass"},
               {"key":"E","value":"","masked":true},{"key":"CI_JOB_TOKEN","value":"job-token","masked":true}]"#,
        );
        let settings = Variables::resolve(&list, &runner(), &gitlab(), &[]).trace_settings(&list, &runner());
        let masked: Vec<_> = settings.masked.iter().map(|value| value.expose_secret()).collect();
        assert_eq!(masked, ["hunter2", "overpass", "job-token"]);
    }

    #[test]
    fn a_variable_that_hides_a_file_variable_leaves_no_file() {
        let variables = resolve(
            r#"[{"key":"F","value":"x","file":true},{"key":"F","value":"y"},{"key":"../G","value":"z","file":true}]"#,
        );
        let files: Vec<_> = variables.files().into_keys().collect();
        assert_eq!(files, ["/builds/grp/sub/app.tmp/.._G"]);
        assert_eq!(variables.exports("running")["F"], "y");
    }

    #[test]
    fn the_runners_certificates_reach_the_job_as_files() {
        let client = ClientCertificate { certificate: "CERT".into(), key: "KEY".into() };
        let gitlab = GitLabAccess { tls_ca: Some("PEM $A".into()), tls_client: Some(client), ..gitlab() };
        let variables = Variables::resolve(&payload("[]"), &runner(), &gitlab, &[]);
        for (name, content) in [("CA", "PEM $A"), ("CERT", "CERT"), ("KEY", "KEY")] {
            let path = variables.get(&format!("CI_SERVER_TLS_{name}_FILE")).expect(name);
            assert_eq!(variables.files()[&path].expose_secret(), content);
        }
    }

    #[test]
    fn a_secret_is_masked_and_raw_and_no_variable_of_the_job_takes_its_place() {
        let secret = |key: &str, file| ResolvedSecret { key: key.into(), value: format!("{key}$A").into(), file };
        let payload =
            payload(r#"[{"key":"A","value":"a"},{"key":"PASSWORD","value":"job"},{"key":"B","value":"$PASSWORD"}]"#);
        let secrets = [secret("PASSWORD", false), secret("KEY_FILE", true)];
        let variables = Variables::resolve(&payload, &runner(), &gitlab(), &secrets);
        assert_eq!(variables.get("PASSWORD").as_deref(), Some("PASSWORD$A"));
        assert_eq!(variables.get("B").as_deref(), Some("PASSWORD$A"));
        let path = variables.get("KEY_FILE").expect("a path");
        assert_eq!(variables.files()[&path].expose_secret(), "KEY_FILE$A");
        let settings = variables.trace_settings(&payload, &runner());
        let masked: Vec<_> = settings.masked.iter().map(|value| value.expose_secret()).collect();
        assert_eq!(masked, ["PASSWORD$A", "KEY_FILE$A", "job-token"]);
    }

    #[test]
    fn a_runner_without_custom_build_dir_refuses_a_clone_path() {
        let payload = payload(r#"[{"key":"GIT_CLONE_PATH","value":"/builds/a"}]"#);
        let runner = RunnerSettings { custom_build_dir: false, ..runner() };
        let variables = Variables::resolve(&payload, &runner, &gitlab(), &[]);
        let refused = variables.refused.expect("a refusal");
        assert_eq!(refused, "setting GIT_CLONE_PATH is not allowed, enable `custom_build_dir` feature");
    }

    #[test]
    fn the_status_of_a_stage_overrides_the_general_one() {
        let exports = resolve("[]").exports("failed");
        assert_eq!(exports["CI_JOB_STATUS"], "failed");
        assert_eq!(exports["CI_DISPOSABLE_ENVIRONMENT"], "true");
    }
}
