//! `step_script` and its like: what the job is there for (protocol 7.2.4).

use job::trace::line;
use tokio::time::Instant;

use super::{Failure, RUNNING, Script};
use crate::run::Run;
use crate::shell::commands;
use crate::stop::Limits;

/// Runs the steps in order; the first failure ends them. `RUNNER_SCRIPT_TIMEOUT` covers all of them.
pub async fn run(run: &Run) -> Result<(), Failure> {
    let until = run.settings.script_timeout.map(|timeout| Instant::now() + timeout);
    policy_lines(run);
    for step in run.payload.steps.iter().filter(|step| step.name != "after_script") {
        // `script` merges before_script in already; the release step is written for the runner's own expansion.
        let script = match step.name.as_str() {
            "release" => step.script.iter().map(|command| run.variables.expand(command)).collect(),
            _ => step.script.clone(),
        };
        let around = |script: &String| if script.trim().is_empty() { vec![] } else { vec![script.clone()] };
        let body = commands(&around(&run.runner.pre_build_script), "pre_build_script", run.echo())
            + &commands(&script, "script_step", run.echo())
            + &commands(&around(&run.runner.post_build_script), "post_build_script", run.echo());
        let stage = format!("step_{}", step.name.to_lowercase());
        let title = format!("Executing \"{stage}\" stage of the job script");
        let script = Script {
            body: &body,
            directory: &run.workspace.project,
            status: RUNNING,
            environment: &[],
            limits: Limits { until, ..Limits::default() },
        };
        run.section(&stage, &title, run.script(script)).await?;
    }
    Ok(())
}

/// What the author of a job should know that a policy put into the pipeline (protocol 3.17).
fn policy_lines(run: &Run) {
    let policy = &run.payload.policy_options;
    if !policy.execution_policy_job {
        return;
    }
    run.trace.line(&line::info(&format!("Job triggered by policy \"{}\".", policy.policy_name)));
    let Some(allowed) = policy.policy_variables_override_allowed else {
        let text =
            "Variables defined in the policy take precedence over matching user-defined CI/CD variables for this job.";
        run.trace.line(&line::info(text));
        return;
    };
    let allowed = if allowed { "allowed" } else { "ignored" };
    let exceptions = match policy.policy_variables_override_exceptions.join(", ") {
        names if names.is_empty() => names,
        names => format!(" (except for {names})"),
    };
    run.trace.line(&line::info(&format!(
        "User-defined CI/CD variables are {allowed} in this job{exceptions} according to the policy."
    )));
}
