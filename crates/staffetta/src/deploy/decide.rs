//! What is done with a stack, by the state that it is in.

use aws::stack::cloudformation::{Phase, StackRecord};

/// One step on the way to a stack that stands, or to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    Update,
    /// Somebody else's operation is under way: its end decides.
    Wait,
    /// Also of a mere record, which blocks the name.
    Delete,
    ContinueRollback,
    /// Nothing that may be done without asking helps.
    GiveUp,
    /// It is as it is wanted.
    Nothing,
}

/// To a stack that stands. `tried` are the steps of this run so far: what did not help once does not help.
pub fn to_make(phase: Option<Phase>, tried: &[Step]) -> Step {
    once(
        match phase {
            None | Some(Phase::Gone) => Step::Create,
            Some(Phase::Working) => Step::Wait,
            Some(Phase::Stands | Phase::TakenBack) => Step::Update,
            Some(Phase::OnlyRecord | Phase::Remains) => Step::Delete,
            Some(Phase::StuckUpdate) => Step::ContinueRollback,
            Some(Phase::Foreign) => Step::GiveUp,
        },
        tried,
    )
}

/// To no stack. CloudFormation deletes one in any state but a working one.
pub fn to_delete(phase: Option<Phase>, tried: &[Step]) -> Step {
    once(
        match phase {
            None | Some(Phase::Gone) => Step::Nothing,
            Some(Phase::Working) => Step::Wait,
            Some(_) => Step::Delete,
        },
        tried,
    )
}

/// Whether `apply` deletes what is there, if anything, and makes the stack again.
pub fn is_made_anew(phase: Phase) -> bool {
    matches!(to_make(Some(phase), &[]), Step::Create | Step::Delete)
}

fn once(step: Step, tried: &[Step]) -> Step {
    match step {
        Step::Delete | Step::ContinueRollback if tried.contains(&step) => Step::GiveUp,
        step => step,
    }
}

/// Why a step is taken that nobody asked for.
pub fn reason(step: Step, status: &str) -> Option<String> {
    match step {
        Step::Delete => Some(match status {
            "REVIEW_IN_PROGRESS" => "a change set was made for it and never executed: its record is deleted".into(),
            "ROLLBACK_COMPLETE" => {
                "it was taken back when it was first made: its record is deleted, and it is made anew".into()
            }
            _ => format!("it is in {status}: what is left of it is deleted, and it is made anew"),
        }),
        Step::ContinueRollback => Some(format!("it is in {status}: the update before is taken back first")),
        Step::Wait => Some(format!("it is in {status}, which somebody else began: waiting for its end")),
        Step::Create | Step::Update | Step::GiveUp | Step::Nothing => None,
    }
}

/// What somebody has to do where nothing may be done without asking. `region` is that of the stack.
pub fn advice(name: &str, record: &StackRecord, region: &str) -> String {
    let stack = format!("--stack-name {name} --region {region}");
    match record.status.as_str() {
        "UPDATE_ROLLBACK_FAILED" => format!(
            "The resources that cannot be taken back have to be left out: `aws cloudformation continue-update-rollback {stack} \
             --resources-to-skip LOGICAL_ID …`. Then run `staffetta deploy apply` again."
        ),
        "UPDATE_FAILED" => format!(
            "Somebody updated it without rollback. Take that back by `aws cloudformation rollback-stack {stack}`. Then run \
             `staffetta deploy apply` again."
        ),
        "DELETE_FAILED" | "ROLLBACK_FAILED" | "CREATE_FAILED" => format!(
            "Remove what is said above by hand and run the command again; or leave it behind by `aws cloudformation delete-stack \
             {stack} --retain-resources LOGICAL_ID …`."
        ),
        _ => format!(
            "Bring it to an end with the tool that began it: `aws cloudformation describe-stack-events {stack}` tells what \
             happened. Then run `staffetta deploy apply` again."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_step() {
        for (phase, made, deleted) in [
            (None, Step::Create, Step::Nothing),
            (Some(Phase::Gone), Step::Create, Step::Nothing),
            (Some(Phase::Working), Step::Wait, Step::Wait),
            (Some(Phase::Stands), Step::Update, Step::Delete),
            (Some(Phase::TakenBack), Step::Update, Step::Delete),
            (Some(Phase::OnlyRecord), Step::Delete, Step::Delete),
            (Some(Phase::Remains), Step::Delete, Step::Delete),
            (Some(Phase::StuckUpdate), Step::ContinueRollback, Step::Delete),
            (Some(Phase::Foreign), Step::GiveUp, Step::Delete),
        ] {
            assert_eq!(to_make(phase, &[]), made, "{phase:?}");
            assert_eq!(to_delete(phase, &[]), deleted, "{phase:?}");
        }
    }

    #[test]
    fn what_did_not_help_is_not_tried_again() {
        assert_eq!(to_make(Some(Phase::Remains), &[Step::Wait, Step::Delete]), Step::GiveUp);
        assert_eq!(to_make(Some(Phase::StuckUpdate), &[Step::ContinueRollback]), Step::GiveUp);
        assert_eq!(to_delete(Some(Phase::Remains), &[Step::Delete]), Step::GiveUp);
        assert_eq!(to_make(Some(Phase::Working), &[Step::Wait]), Step::Wait);
        assert_eq!(to_make(Some(Phase::OnlyRecord), &[Step::ContinueRollback]), Step::Delete);
    }
}
