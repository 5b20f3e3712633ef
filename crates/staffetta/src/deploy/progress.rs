//! What `apply` and `destroy` tell while they work: a line for each event, or a JSON object.

use std::io::{self, IsTerminal, Write};

use aws::stack::Stack;
use aws::stack::cloudformation::Event;
use serde::Serialize;

use super::cause::Cause;
use super::ready::Missing;

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
    /// `apply` came to its end. `missing` is what managers and jobs wait for.
    End { changed: bool, missing: &'a [Missing] },
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
}

impl Progress {
    pub fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colours: !json && wanted && io::stdout().is_terminal(), working: None }
    }

    pub fn tell(&mut self, told: &Told) {
        match told {
            Told::Stack { stack, region, .. } => self.working = Some(((*stack).to_owned(), (*region).to_owned())),
            Told::Done { .. } | Told::Failed { .. } => self.working = None,
            Told::Resource { .. } | Told::Note { .. } | Told::State { .. } | Told::End { .. } | Told::Left { .. } => {}
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
        Told::End { changed: false, missing: [] } => "No change: everything is as the file says.".to_owned(),
        Told::End { missing: [], .. } => "Done. `staffetta doctor` looks whether jobs can run.".to_owned(),
        Told::End { changed, missing } => {
            let known = if *changed { "Done" } else { "No change: the stacks are as the file says" };
            let mut text = format!("{known}. Before jobs run, this is missing:");
            for Missing { what, commands, .. } in *missing {
                text.push_str(&format!("\n  {what}\n    {}", commands.join("\n    ")));
            }
            text + "\nThen run `staffetta deploy apply` again: it starts the managers that wait."
        }
        Told::Left { what } => format!("Deleted. Not deleted:\n  {}", what.join("\n  ")),
    }
}
