//! `cleanup_file_variables`: nothing secret stays, and nothing here can fail the job (protocol 7.7).

use job::trace::line;

use super::packing::LIMITS;
use crate::run::Run;

/// `status` is the `CI_JOB_STATUS` that the script left.
pub async fn run(run: &Run, status: &str) {
    run.section("cleanup_file_variables", "Cleaning up project directory and file based variables", async {
        super::get_sources::clean_up(run, status).await;
        // Whoever stops it, it is tried once more at the very end.
        if let Ok(Err(error)) = run.unless_stopped(LIMITS, run.clean_up()).await {
            run.say(&line::warning(&format!("cannot clean up: {error}")));
        }
    })
    .await;
}
