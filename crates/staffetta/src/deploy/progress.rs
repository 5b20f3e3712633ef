//! What `apply` and `destroy` tell while they work: a line for each event, or a JSON object.

use std::io::{self, Write};

use aws::stack::Stack;
use aws::stack::cloudformation::Event;
use serde::Serialize;

use super::apply::Applied;
use super::cause::Cause;
use super::ready::Missing;
use crate::terminal;

/// CloudFormation compares the file with what it was told last, and not with what there is.
pub const NO_CHANGE: &str = "No change: the stacks are as the file says. What was changed or deleted by hand CloudFormation does \
                             not see: `staffetta doctor` looks, and docs/deploy.md says what to do.";

/// One thing to tell. With `--json` it is an object whose `event` is the name below.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Told<'a> {
    /// What is begun with a stack, and why if nobody asked for it.
    Stack {
        stack: &'a str,
        account: &'a str,
        region: &'a str,
        doing: Doing,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    },
    /// CloudFormation's own: a resource reached a state.
    Resource {
        stack: &'a str,
        time: &'a str,
        resource: &'a str,
        #[serde(rename = "type")]
        resource_type: &'a str,
        status: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    /// A stack is as it is wanted.
    Done { stack: &'a str, result: Outcome },
    /// Something else to know.
    Note { text: &'a str },
    Failed {
        stack: &'a str,
        error: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        first_cause: Option<&'a Cause>,
        #[serde(skip_serializing_if = "Option::is_none")]
        advice: Option<&'a str>,
    },
    /// How each stack is in the end. `status` is CloudFormation's word, none for a stack that is not there.
    State { stack: &'a str, account: &'a str, region: &'a str, status: Option<&'a str> },
    /// `apply` came to its end.
    End(&'a Applied),
    /// `destroy` came to its end, and this is not deleted.
    Left { what: &'a [String] },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    Create,
    Update,
    Delete,
    Wait,
    ContinueRollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Created,
    Updated,
    NoChange,
    Deleted,
    NotThere,
}

/// To standard output.
pub struct Progress {
    json: bool,
    colours: bool,
    /// Name and region of the stack on which CloudFormation works now.
    working: Option<(String, String)>,
    /// The stack and the name of a change set that is not executed yet.
    asked_for: Option<(String, String)>,
}

impl Progress {
    pub fn new(json: bool) -> Self {
        Self { json, colours: !json && terminal::colours(&io::stdout()), working: None, asked_for: None }
    }

    pub fn tell(&mut self, told: &Told) {
        match told {
            Told::Stack { stack, region, .. } => self.working = Some(((*stack).to_owned(), (*region).to_owned())),
            Told::Done { .. } | Told::Failed { .. } => self.working = None,
            Told::Resource { .. } | Told::Note { .. } | Told::State { .. } | Told::End(_) | Told::Left { .. } => {}
        }
        let line = match self.json {
            true => serde_json::to_string(told).unwrap_or_default(),
            false => text(told, self.colours),
        };
        // Whoever reads it may be gone; the work is to be finished all the same.
        let _ = writeln!(io::stdout(), "{line}");
    }

    pub fn begin(&mut self, stack: &Stack, doing: Doing, why: Option<&str>) {
        let (account, region) = (&stack.place.account, &stack.place.region);
        self.tell(&Told::Stack { stack: &stack.name, account, region, doing, why });
    }

    pub fn event(&mut self, stack: &Stack, event: &Event) {
        let Event { time, logical_id, resource_type, status, reason, .. } = event;
        let (stack, reason) = (stack.name.as_str(), reason.as_deref());
        self.tell(&Told::Resource { stack, time, resource: logical_id, resource_type, status, reason });
    }

    pub fn note(&mut self, text: &str) {
        self.tell(&Told::Note { text });
    }

    /// From now on there may be this change set of this stack, and nobody else deletes it.
    pub fn asks_for(&mut self, change_set: Option<(&str, &str)>) {
        self.asked_for = change_set.map(|(stack, name)| (stack.to_owned(), name.to_owned()));
    }

    pub fn asked_for(&self) -> Option<(&str, &str)> {
        self.asked_for.as_ref().map(|(stack, name)| (stack.as_str(), name.as_str()))
    }

    /// The stack that goes on without us, if any: its name and region.
    pub fn working(&self) -> Option<(&str, &str)> {
        self.working.as_ref().map(|(name, region)| (name.as_str(), region.as_str()))
    }
}

fn text(told: &Told, colours: bool) -> String {
    let styled = |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    match told {
        Told::Stack { stack, account, region, doing, why } => {
            let doing = match doing {
                Doing::Create => "is made",
                Doing::Update => "is changed",
                Doing::Delete => "is deleted",
                Doing::Wait => "is waited for",
                Doing::ContinueRollback => "is taken back",
            };
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            format!("{} ({account}, {region}) {doing}{why}", styled("1", stack))
        }
        Told::Resource { time, resource, resource_type, status, reason, .. } => {
            let colour = match *status {
                status if status.ends_with("_FAILED") || status.contains("ROLLBACK") => "31",
                status if status.ends_with("_COMPLETE") => "32",
                _ => "2",
            };
            // AWS says when a line is said by whom; whoever waits wants hours, minutes and seconds.
            let clock = time.split_once('T').map_or(*time, |(_, clock)| clock.get(..8).unwrap_or(clock));
            let reason = reason.map(|reason| format!("  {reason}")).unwrap_or_default();
            format!("  {clock}  {resource_type} {resource}  {}{reason}", styled(colour, status))
        }
        Told::Done { stack, result } => {
            let result = match result {
                Outcome::Created => "made",
                Outcome::Updated => "changed",
                Outcome::NoChange => "no change",
                Outcome::Deleted => "deleted",
                Outcome::NotThere => "not there",
            };
            format!("{}: {result}", styled("1", stack))
        }
        Told::Note { text } => (*text).to_owned(),
        Told::Failed { stack, error, first_cause, advice } => {
            let mut text = format!("{}: {error}", styled("31", stack));
            if let Some(Cause { resource, status, reason, fix }) = first_cause {
                text.push_str(&format!("\n  first cause: {resource} {status}: {reason}"));
                text.push_str(&fix.as_ref().map(|fix| format!("\n  fix:         {fix}")).unwrap_or_default());
            }
            text.push_str(&advice.map(|advice| format!("\n  what to do:  {advice}")).unwrap_or_default());
            text
        }
        Told::State { stack, account, region, status } => {
            format!("  {stack} ({account}, {region}): {}", status.unwrap_or("not there"))
        }
        Told::End(applied) => end(applied),
        Told::Left { what } => format!("Deleted. Not deleted:\n  {}", what.join("\n  ")),
    }
}

/// Whether all is as the file says; then what does not run yet, and what it needs.
fn end(Applied { changed, held, waiting, missing }: &Applied) -> String {
    let mut text = match (held.is_empty(), waiting.is_empty() && missing.is_empty(), changed) {
        (true, true, false) => return NO_CHANGE.to_owned(),
        (true, true, true) => return "Done. `staffetta doctor` looks whether jobs can run.".to_owned(),
        (true, false, false) => "No change: the stacks are as the file says.".to_owned(),
        (true, false, true) => "Done: the stacks are as the file says.".to_owned(),
        (false, ..) => format!("Not as the file says: {}, as long as something is missing.", held.join(", ")),
    };
    if !waiting.is_empty() {
        text.push_str(&format!(" No manager runs yet in {}.", waiting.join(", ")));
    }
    if !missing.is_empty() {
        text.push_str("\nBefore jobs run as the file says, this is missing:");
    }
    for Missing { what, commands, .. } in missing {
        text.push_str(&format!("\n  {what}\n    {}", commands.join("\n    ")));
    }
    let then = match (held.is_empty(), waiting.is_empty()) {
        (true, true) => "Then `staffetta doctor` looks whether jobs can run.",
        (false, true) => "Then run `staffetta deploy apply` again: it changes what stayed.",
        (_, false) => "Then run `staffetta deploy apply` again: it starts the managers that wait.",
    };
    format!("{text}\n{then}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_is_not_as_the_file_says_and_what_does_not_run() {
        let told = |held: &[&str], waiting: &[&str], missing: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let missing = missing.iter().map(|what| Missing {
                stack: "ci-dev".into(),
                what: (*what).to_owned(),
                commands: vec!["docker push".into()],
            });
            end(&Applied { changed: false, held: names(held), waiting: names(waiting), missing: missing.collect() })
        };
        assert_eq!(told(&[], &[], &[]), NO_CHANGE);
        for (text, words) in [
            (told(&["m"], &[], &["image"]), "Not as the file says: m, as long as something is missing.\n"),
            (told(&["m"], &[], &["image"]), "\n  image\n    docker push\nThen run `staffetta deploy apply` again"),
            (told(&[], &["m"], &["image"]), "the stacks are as the file says. No manager runs yet in m.\n"),
            (told(&[], &["m"], &[]), "No manager runs yet in m.\nThen run `staffetta deploy apply` again"),
            (told(&[], &[], &["image"]), "Then `staffetta doctor` looks"),
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }
}
