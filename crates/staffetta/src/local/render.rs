//! What `staffetta local` prints while the pipeline runs.
//!
//! * [`Mode::Live`]: every job's log, line by line, with the job's name in front. With one active job its unfinished line
//!   appears at once; with several, after a second without the line's end.
//! * [`Mode::Quiet`]: one line per job, when it has ended.
//! * [`Mode::Json`]: one object per line. `event` is `started` (`engine`), `job` (`id`, `job`, `status`,
//!   `failure_reason`, `exit_code`, `retried`), `log` (`id`, `job`, `text`: one line without styles), `interrupted`, or, at
//!   the end, `pipeline` (see `summary::json`).

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use embedded::gitlab::Status;
use serde_json::json;

use super::event::Event;
use super::summary::{self, styled};
use super::trace_lines::TraceLines;
use crate::terminal::colours;

/// How long an unfinished line may wait while several jobs write.
const PATIENCE: Duration = Duration::from_secs(1);
/// A longer name would push every log out of the window.
const MAX_NAME: usize = 40;
/// Cyan, yellow, magenta, blue, green and their bright ones: red is for errors.
const COLOURS: [u8; 10] = [36, 33, 35, 34, 32, 96, 93, 95, 94, 92];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Live,
    Quiet,
    Json,
}

#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub mode: Mode,
    /// Standard output is a terminal: an unfinished line can be written anew.
    pub terminal: bool,
    pub colours: bool,
}

impl Look {
    /// For standard output as it is. `NO_COLOR` counts if it is not empty.
    pub fn of_stdout(mode: Mode) -> Self {
        let terminal = io::IsTerminal::is_terminal(&io::stdout());
        Self { mode, terminal, colours: mode != Mode::Json && colours(&io::stdout()) }
    }
}

/// Turns events into what is to be printed. It knows what is on the screen, so nobody else may write there.
pub struct Screen {
    look: Look,
    width: usize,
    jobs: HashMap<u64, Job>,
    /// The job whose unfinished line ends where the cursor is.
    cursor: Option<u64>,
}

struct Job {
    name: String,
    colour: u8,
    active: bool,
    /// When a runner got it.
    began: Option<Instant>,
    /// Something of its log was printed.
    has_log: bool,
    lines: TraceLines,
    /// The part of the present line that was printed.
    shown: String,
    /// Since when there has been more to print.
    waiting: Option<Instant>,
}

impl Screen {
    /// `jobs` are the names that will come, for the width of the column.
    pub fn new<'a>(look: Look, jobs: impl IntoIterator<Item = &'a str>) -> Self {
        let width = jobs.into_iter().map(|name| name.chars().count()).max().unwrap_or(0).min(MAX_NAME);
        Self { look, width, jobs: HashMap::new(), cursor: None }
    }

    /// What to print now because of `event`.
    pub fn tell(&mut self, event: &Event, now: Instant) -> String {
        let mut out = String::new();
        match (self.look.mode, event) {
            (Mode::Json, event) => self.tell_program(event, &mut out),
            (_, Event::Started { engine }) => {
                let _ = writeln!(out, "{}", styled(2, &format!("Tasks: {engine}"), self.look.colours));
            }
            (_, Event::Interrupted) => {
                self.leave_line(&mut out);
                out.push_str("Interrupted: the jobs are being cancelled. Press Ctrl-C again to stop at once.\n");
            }
            (mode, Event::JobState { job: id, name, status, retried, .. }) => {
                let job = self.job(*id, name);
                job.active = status.is_on_runner();
                job.began = job.began.or(Some(now).filter(|_| job.active));
                // The log of a job says by itself that it began and how it ended.
                let in_log = match status {
                    Status::Created | Status::Pending | Status::Running | Status::Success => true,
                    Status::Failed => job.has_log && !retried,
                    Status::Canceling | Status::Canceled | Status::Skipped | Status::Manual => false,
                };
                if status.is_complete() {
                    self.finish_log(*id, &mut out);
                }
                let told = match mode {
                    Mode::Quiet => status.is_complete() || *status == Status::Manual,
                    Mode::Live | Mode::Json => !in_log,
                };
                if told {
                    self.state(*id, event, now, &mut out);
                }
            }
            (Mode::Quiet, Event::Log { .. }) => {}
            (Mode::Live, Event::Log { job, name, offset, bytes }) => {
                let lines = self.job(*job, name).lines.read(*offset, bytes);
                lines.iter().for_each(|line| self.whole_line(*job, line, &mut out));
                self.unfinished(*job, now, &mut out);
            }
        }
        out
    }

    /// What to print at `now` although nothing happened. To be called when [`Self::deadline`] has come.
    pub fn tick(&mut self, now: Instant) -> String {
        let mut out = String::new();
        let mut due: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.is_due(now)).map(|(id, _)| *id).collect();
        due.sort_unstable();
        due.into_iter().for_each(|job| self.show_unfinished(job, &mut out));
        out
    }

    /// When an unfinished line will have waited long enough.
    pub fn deadline(&self) -> Option<Instant> {
        self.jobs.values().filter_map(|job| job.waiting).min().map(|since| since + PATIENCE)
    }

    /// What is left to print, so that others can write from the beginning of a line.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        let mut jobs: Vec<u64> = self.jobs.keys().copied().collect();
        jobs.sort_unstable();
        jobs.into_iter().for_each(|job| self.finish_log(job, &mut out));
        self.leave_line(&mut out);
        out
    }

    fn job(&mut self, id: u64, name: &str) -> &mut Job {
        let colour = COLOURS[self.jobs.len() % COLOURS.len()];
        let styles = self.look.colours;
        self.jobs.entry(id).or_insert_with(|| Job {
            name: name.to_owned(),
            colour,
            active: false,
            began: None,
            has_log: false,
            lines: TraceLines::new(styles),
            shown: String::new(),
            waiting: None,
        })
    }

    fn finish_log(&mut self, id: u64, out: &mut String) {
        let lines = self.jobs.get_mut(&id).map(|job| job.lines.finish()).unwrap_or_default();
        for line in lines {
            if self.look.mode == Mode::Json {
                self.log_object(id, &line, out);
            } else {
                self.whole_line(id, &line, out);
            }
        }
    }

    /// Prints a line to its end, or what is not yet there of it.
    fn whole_line(&mut self, id: u64, line: &str, out: &mut String) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let shown = std::mem::take(&mut job.shown);
        job.waiting = None;
        if shown == line && !line.is_empty() {
            // All of it is there; another job may have ended it.
            if self.cursor == Some(id) {
                self.leave_line(out);
            }
            return;
        }
        self.print(id, &shown, line, out);
        self.leave_line(out);
    }

    fn unfinished(&mut self, id: u64, now: Instant, out: &mut String) {
        let others = self.jobs.iter().any(|(other, job)| *other != id && job.active);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let more = job.lines.partial().is_some_and(|partial| partial != job.shown.as_str());
        job.waiting = if more { job.waiting.or(Some(now)) } else { None };
        if more && !others {
            self.show_unfinished(id, out);
        }
    }

    fn show_unfinished(&mut self, id: u64, out: &mut String) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.waiting = None;
        let Some(partial) = job.lines.partial().map(|partial| partial.into_owned()) else { return };
        let shown = std::mem::replace(&mut job.shown, partial.clone());
        self.print(id, &shown, &partial, out);
    }

    /// Brings the present line of a job from `shown` to `line`; the cursor stays behind it.
    fn print(&mut self, id: u64, shown: &str, line: &str, out: &mut String) {
        let here = self.cursor == Some(id);
        match line.strip_prefix(shown) {
            Some(rest) if here => out.push_str(rest),
            // Another job's line came between: the line goes on in one of its own.
            Some(rest) => self.begin_line(id, rest, out),
            // The job wrote the line anew, as progress bars do.
            None if here && self.look.terminal => {
                out.push_str("\r\x1b[K");
                self.cursor = None;
                self.begin_line(id, line, out);
            }
            None => self.begin_line(id, line, out),
        }
        self.cursor = Some(id);
    }

    fn begin_line(&mut self, id: u64, text: &str, out: &mut String) {
        self.leave_line(out);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.has_log = true;
        let name: String = job.name.chars().take(MAX_NAME).collect();
        let front = format!("{name:width$} │", width = self.width);
        let gap = if text.is_empty() { "" } else { " " };
        let _ = write!(out, "{}{gap}{text}", styled(job.colour, &front, self.look.colours));
    }

    /// Puts the cursor to the beginning of a line, with no style on.
    fn leave_line(&mut self, out: &mut String) {
        if self.cursor.take().is_some() {
            out.push_str(if self.look.colours { "\x1b[0m\n" } else { "\n" });
        }
    }

    fn state(&mut self, id: u64, event: &Event, now: Instant, out: &mut String) {
        let Event::JobState { status, failure_reason, exit_code, retried, .. } = event else { return };
        let mut text = summary::word(*status).to_owned();
        if let Some(began) = self.jobs.get(&id).and_then(|job| job.began).filter(|_| status.is_complete()) {
            let _ = write!(text, " after {:.1} s", now.saturating_duration_since(began).as_secs_f64());
        }
        if *status == Status::Failed {
            let _ = write!(text, ": {}", summary::reason(failure_reason.as_deref(), *exit_code));
        }
        if *retried {
            text.push_str("; it will be tried again");
        }
        let text = styled(summary::colour(*status), &text, self.look.colours);
        self.begin_line(id, &text, out);
        self.cursor = Some(id);
        self.leave_line(out);
    }

    fn tell_program(&mut self, event: &Event, out: &mut String) {
        match event {
            Event::Started { engine } => object(&json!({"event": "started", "engine": engine}), out),
            Event::Interrupted => object(&json!({"event": "interrupted"}), out),
            Event::JobState { job, name, status, failure_reason, exit_code, retried } => {
                if status.is_complete() {
                    self.finish_log(*job, out);
                }
                let value = json!({
                    "event": "job",
                    "job": name,
                    "id": job,
                    "status": status.word(),
                    "failure_reason": failure_reason,
                    "exit_code": exit_code,
                    "retried": retried,
                });
                object(&value, out);
            }
            Event::Log { job, name, offset, bytes } => {
                for line in self.job(*job, name).lines.read(*offset, bytes) {
                    self.log_object(*job, &line, out);
                }
            }
        }
    }

    fn log_object(&self, id: u64, line: &str, out: &mut String) {
        let name = self.jobs.get(&id).map(|job| job.name.as_str());
        object(&json!({"event": "log", "job": name, "id": id, "text": line}), out);
    }
}

impl Job {
    fn is_due(&self, now: Instant) -> bool {
        self.waiting.is_some_and(|since| since + PATIENCE <= now)
    }
}

fn object(value: &serde_json::Value, out: &mut String) {
    let _ = writeln!(out, "{value}");
}

/// A screen that prints from a thread of its own, so that a slow terminal holds up no job.
pub struct Display {
    events: mpsc::Sender<Event>,
    thread: JoinHandle<()>,
}

impl Display {
    pub fn start(mut screen: Screen, mut out: impl io::Write + Send + 'static) -> Self {
        let (events, incoming) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // Whoever read the output may have left; the pipeline runs on.
            let mut print = move |text: String| {
                if !text.is_empty() {
                    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                }
            };
            loop {
                let event = match screen.deadline() {
                    Some(deadline) => incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())),
                    None => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match event {
                    Ok(event) => print(screen.tell(&event, Instant::now())),
                    Err(RecvTimeoutError::Timeout) => print(screen.tick(Instant::now())),
                    Err(RecvTimeoutError::Disconnected) => return print(screen.finish()),
                }
            }
        });
        Self { events, thread }
    }

    pub fn tell(&self, event: Event) {
        // The thread lives until `finish`.
        let _ = self.events.send(event);
    }

    /// Returns when everything is printed.
    pub fn finish(self) {
        drop(self.events);
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests;
