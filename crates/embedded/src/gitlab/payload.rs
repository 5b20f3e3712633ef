//! The body of a 201 from `jobs/request` (protocol 3 and appendix B).

use serde_json::{Value, json};

use super::artifacts::default_name;
use super::cache_keys;
use super::ci;
use super::id_token;
use super::job::Job;
use super::release;
use super::secrets;
use super::state::{Pipeline, Shared, State};
use super::variables;
use super::view::JobId;

/// What `features.failure_reasons` lists: the words that this server understands.
pub(super) const FAILURE_REASONS: [&str; 12] = [
    "unknown_failure",
    "script_failure",
    "api_failure",
    "stuck_or_timeout_failure",
    "runner_system_failure",
    "missing_dependency_failure",
    "runner_unsupported",
    "job_execution_timeout",
    "image_pull_failure",
    "runner_configuration_error",
    "runner_external_dependency_failure",
    "runner_interrupted",
];

/// `run` is left out rather than null: GitLab's own runner loses a job with a null there.
pub(super) fn of(shared: &Shared, state: &State, id: JobId) -> Option<Value> {
    let job = state.jobs.get(&id)?;
    let pipeline = state.pipelines.get(&job.pipeline)?;
    let definition = &job.definition;
    let dependencies = dependencies(state, pipeline, job);
    let variables = variables::of_job(shared, state, pipeline, job, &dependencies);
    let depth = variables::value(&variables, "GIT_DEPTH").map_or(20, |depth| depth.parse::<u32>().unwrap_or(0));
    let timeout = timeout(shared, state, job);
    let queued = job.started_at.zip(job.queued_at).and_then(|(start, queued)| start.duration_since(queued).ok());
    let (namespace, project) = project_names(&shared.config.project_path);
    let repo_url = repository_url(shared, job);
    let protected = state.is_protected(pipeline.id);
    let caches = definition.caches.iter();
    let sign = |token: &ci::IdToken| id_token::sign(shared, state, pipeline, job, token);
    let mut payload = json!({
        "id": job.id,
        "token": job.token,
        "allow_git_fetch": true,
        "job_info": {
            "id": job.id,
            "name": definition.name,
            "stage": definition.stage,
            "pipeline_id": pipeline.id,
            "project_id": super::PROJECT_ID,
            "project_name": project,
            "project_full_path": shared.config.project_path,
            "namespace_id": 1,
            "root_namespace_id": 1,
            "organization_id": 1,
            "instance_id": namespace,
            "user_id": 1,
            "time_in_queue_seconds": queued.unwrap_or_default().as_secs_f64(),
            "project_jobs_running_on_instance_runners_count": "+Inf",
            "queue_size": state.queue.len(),
            "queue_depth": 1,
        },
        "git_info": {
            "repo_url": repo_url,
            "ref": pipeline.git_ref.in_payload(),
            "sha": pipeline.commit.sha,
            "before_sha": variables::no_commit(&pipeline.commit.sha),
            "ref_type": pipeline.git_ref.kind(),
            "refspecs": pipeline.git_ref.refspecs(pipeline.id, depth),
            "depth": depth,
            "repo_object_format": pipeline.commit.object_format,
            "protected": protected,
        },
        "runner_info": { "timeout": timeout, "runner_session_url": null },
        "inputs": definition.inputs.iter().map(input).collect::<Vec<_>>(),
        "variables": variables.iter().map(variables::Entry::json).collect::<Vec<_>>(),
        "steps": steps(definition, timeout),
        "hooks": hooks(definition),
        "image": definition.image.as_ref().map(image),
        "services": definition.services.iter().map(service).collect::<Vec<_>>(),
        "artifacts": definition.artifacts.as_ref().map(artifacts),
        "cache": caches.map(|cache| cache_keys::entry(cache, &shared.config, protected)).collect::<Vec<_>>(),
        "credentials": [],
        "dependencies": dependencies.iter().map(|job| dependency(job)).collect::<Vec<_>>(),
        "features": {
            "trace_sections": true,
            "token_mask_prefixes": ["glpat-"],
            "failure_reasons": FAILURE_REASONS,
        },
        "secrets": secrets::of_job(definition, &shared.config, &variables, sign),
        "policy_options": {},
        "suspend_options": {},
    });
    if let Some(run) = &definition.run {
        payload["run"] = json!(run.to_string());
    }
    Some(payload)
}

/// The group and the project's own name.
pub(super) fn project_names(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// With the job's credentials in it, as GitLab sends it.
pub(super) fn repository_url(shared: &Shared, job: &Job) -> String {
    let url = shared.project_url();
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
    format!("{scheme}://gitlab-ci-token:{}@{rest}.git", job.token)
}

pub(super) fn timeout(shared: &Shared, state: &State, job: &Job) -> u64 {
    let own = job.definition.timeout.unwrap_or(shared.config.job_timeout).as_secs();
    let runner = job.runner.and_then(|runner| state.runners.get(&runner));
    runner.and_then(|runner| runner.maximum_timeout).map_or(own, |most| own.min(most))
}

/// The jobs whose artifacts and dotenv variables this one gets: those it needs, or those of all earlier pipeline
/// stages; of these only the ones in `dependencies`, if it says so.
fn dependencies<'s>(state: &'s State, pipeline: &Pipeline, job: &Job) -> Vec<&'s Job> {
    let definition = &job.definition;
    let stage_of = |name: &str| pipeline.stages.iter().position(|stage| stage == name);
    let stage = stage_of(&definition.stage);
    let wanted = |other: &&Job| {
        let candidate = match &definition.needs {
            Some(needs) => needs.iter().any(|need| need.artifacts && need.job == other.definition.name),
            None => stage_of(&other.definition.stage) < stage,
        };
        let named = definition.dependencies.as_ref().is_none_or(|names| names.contains(&other.definition.name));
        candidate && named
    };
    pipeline.latest.iter().filter_map(|id| state.jobs.get(id)).filter(wanted).collect()
}

fn dependency(job: &Job) -> Value {
    let mut entry = json!({ "id": job.id, "name": job.definition.name, "token": job.token });
    // GitLab leaves the key out for a job without an archive.
    if let Some(archive) = job.archive() {
        entry["artifacts_file"] = json!({ "filename": archive.filename, "size": archive.size });
    }
    entry
}

fn steps(job: &ci::Job, timeout: u64) -> Vec<Value> {
    let script: Vec<&String> = job.before_script.iter().chain(&job.script).collect();
    if job.run.is_some() {
        return Vec::new();
    }
    let mut steps = vec![json!({
        "name": "script", "script": script, "timeout": timeout, "when": "on_success", "allow_failure": false,
    })];
    if let Some(release) = &job.release {
        steps.push(json!({
            "name": "release", "script": [release::script(release)], "timeout": timeout, "when": "on_success",
            "allow_failure": false,
        }));
    }
    if !job.after_script.is_empty() {
        steps.push(json!({
            "name": "after_script", "script": job.after_script, "timeout": timeout, "when": "always",
            "allow_failure": true,
        }));
    }
    steps
}

fn hooks(job: &ci::Job) -> Vec<Value> {
    let script = words(&job.pre_get_sources);
    script.map(|script| json!({ "name": "pre_get_sources_script", "script": script })).into_iter().collect()
}

fn input(input: &ci::Input) -> Value {
    json!({ "key": input.key, "value": { "type": input.kind, "content": input.value } })
}

fn words(list: &[String]) -> Option<&[String]> {
    (!list.is_empty()).then_some(list)
}

fn image(image: &ci::Image) -> Value {
    json!({
        "name": image.name, "entrypoint": words(&image.entrypoint), "ports": [],
        "executor_opts": image.executor_opts, "pull_policy": words(&image.pull_policy),
    })
}

fn service(service: &ci::Service) -> Value {
    let variables: Vec<Value> = (service.variables.iter())
        .map(|variable| json!({ "key": variable.key, "value": variable.value, "public": true, "raw": variable.raw }))
        .collect();
    json!({
        "name": service.name, "alias": service.alias, "entrypoint": words(&service.entrypoint),
        "command": words(&service.command), "ports": [], "variables": variables,
        "executor_opts": service.executor_opts, "pull_policy": words(&service.pull_policy),
    })
}

/// The user's archive first, then one entry for each report.
fn artifacts(artifacts: &ci::Artifacts) -> Vec<Value> {
    let when = match artifacts.when {
        ci::SaveWhen::OnSuccess => None,
        ci::SaveWhen::OnFailure => Some("on_failure"),
        ci::SaveWhen::Always => Some("always"),
    };
    let archive = (artifacts.untracked || !artifacts.paths.is_empty()).then(|| {
        json!({
            "name": artifacts.name, "untracked": artifacts.untracked.then_some(true),
            "paths": words(&artifacts.paths), "exclude": words(&artifacts.exclude), "when": when,
            "expire_in": artifacts.expire_in, "artifact_type": "archive", "artifact_format": "zip",
        })
    });
    let report = |(kind, paths): &(String, Vec<String>)| {
        json!({
            "name": default_name(kind), "paths": paths, "when": "always", "expire_in": artifacts.expire_in,
            "artifact_type": kind, "artifact_format": super::artifacts::format_of(kind),
        })
    };
    archive.into_iter().chain(artifacts.reports.iter().map(report)).collect()
}
