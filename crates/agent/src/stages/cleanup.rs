//! `cleanup_file_variables`: nothing secret stays, and nothing here can fail the job (protocol 7.7).

use job::trace::line;

use crate::run::Run;

pub async fn run(run: &Run) {
    run.section("cleanup_file_variables", "Cleaning up project directory and file based variables", async {
        super::get_sources::clean_up(run).await;
        if let Err(error) = run.workspace.clean_up(&run.variables) {
            run.say(&line::warning(&format!("cannot clean up: {error}")));
        }
    })
    .await;
}
