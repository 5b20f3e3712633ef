//! What work that knows nothing of the job's log has to say there.

#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    Info(String),
    Warning(String),
}
