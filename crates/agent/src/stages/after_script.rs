//! `after_script`: in a shell of its own, whatever became of the script (protocol 7.4).

use job::trace::line;
use tokio::time::Instant;

use super::{Failure, Script};
use crate::run::Run;
use crate::shell::{commands, print_line};
use crate::stop::{Limits, Stop};

/// `status` is the `CI_JOB_STATUS` that the script left. Fails only if the job must: usually that is a warning.
pub async fn run(run: &Run, status: &str) -> Result<(), Failure> {
    let steps = run.payload.steps.iter().filter(|step| step.name == "after_script" && !step.script.is_empty());
    for step in steps {
        let result = run.section("after_script", "Running after_script", script(run, &step.script, status)).await;
        let Err(failure) = result else { continue };
        let reason = match &failure {
            Failure::Stopped(Stop::StageTimedOut) => {
                format!("it took longer than {} seconds", run.settings.after_script_timeout.as_secs_f64())
            }
            Failure::Exit(code) => format!("exit code {code}"),
            Failure::System(_, message) => message.clone(),
            Failure::Stopped(_) => return Err(failure),
        };
        if !run.settings.after_script_ignores_errors {
            return Err(match failure {
                // The outcome's own words are about the script's time-out.
                Failure::Stopped(_) => run.helper_failed(&format!("after_script failed: {reason}")),
                failure => failure,
            });
        }
        run.trace.line(&line::warning(&format!("after_script failed, but job will continue unaffected: {reason}")));
    }
    Ok(())
}

async fn script(run: &Run, script: &[String], status: &str) -> Result<(), Failure> {
    let body = print_line(&line::info("Running after script...")) + &commands(script, "after_script_step", run.echo());
    run.script(Script {
        body: &body,
        directory: &run.workspace.project,
        status,
        environment: &[],
        limits: Limits { deaf_to_cancel: true, until: Some(Instant::now() + run.settings.after_script_timeout) },
    })
    .await
}
