//! Waits for the end of what CloudFormation does with a stack, and tells each event.

use std::time::{Duration, Instant};

use aws::CallError;
use aws::stack::Stack;
use aws::stack::cloudformation::{CloudFormation, Event, Phase, StackRecord, phase};

use super::progress::Progress;
use super::quiet;

/// Between two looks. All who deploy in an account share the few calls that CloudFormation allows.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How it ended.
pub struct Ended {
    /// None: it is not there.
    pub record: Option<StackRecord>,
    /// Of this operation, oldest first.
    pub events: Vec<Event>,
}

/// `id` is the stack's ARN, which also names it when it is deleted. `last` was its last event before the operation. One of
/// `ours` has not begun before an event says so.
pub async fn follow(
    cloudformation: &CloudFormation<'_>,
    stack: &Stack,
    id: &str,
    last: Option<String>,
    ours: bool,
    progress: &mut Progress,
) -> Result<Ended, CallError> {
    let mut last = last;
    let mut events: Vec<Event> = Vec::new();
    let (mut quiet_since, mut told) = (Instant::now(), 0);
    loop {
        // First the state: what happens after it is seen with the next look.
        let record = cloudformation.describe(id).await?;
        if record.is_none() {
            return Ok(Ended { record, events });
        }
        for event in cloudformation.events_after(id, last.as_deref()).await? {
            progress.event(stack, &event);
            last = Some(event.id.clone());
            events.push(event);
            (quiet_since, told) = (Instant::now(), 0);
        }
        if quiet::is_due(quiet_since.elapsed(), told) {
            progress.note(&format!("{}: {}", stack.name, quiet::waits_for(&events, &stack.place.region)));
            told += 1;
        }
        // The state may be that of a moment ago, so the events must have come to an end too.
        let said_last = events.iter().rfind(|event| event.is_of_stack());
        let said_end = said_last.map_or(!ours, |event| phase(&event.status) != Phase::Working);
        let at_end = match record.as_ref().map(StackRecord::phase) {
            // Nothing comes after this, whether an event is told of it or not.
            Some(Phase::Gone) => true,
            Some(Phase::Working) => false,
            _ => said_end,
        };
        if at_end {
            return Ok(Ended { record, events });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
