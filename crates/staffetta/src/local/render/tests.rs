//! What people and programs see.

use bytes::Bytes;

use super::*;

const TERMINAL: Look = Look { mode: Mode::Live, terminal: true, colours: false };
const COLOURED: Look = Look { colours: true, ..TERMINAL };
const PIPE: Look = Look { terminal: false, ..TERMINAL };

/// A screen whose output is collected; time passes only when told.
struct Test {
    screen: Screen,
    now: Instant,
    offsets: HashMap<u64, u64>,
    out: String,
}

impl Test {
    fn new(look: Look) -> Self {
        let names = ["build-dev", "deploy-dev"];
        Self { screen: Screen::new(look, names), now: Instant::now(), offsets: HashMap::new(), out: String::new() }
    }

    fn state(&mut self, job: u64, status: Status) -> &mut Self {
        self.failed(job, status, None, None, false)
    }

    fn failed(
        &mut self,
        job: u64,
        status: Status,
        reason: Option<&str>,
        code: Option<i32>,
        retried: bool,
    ) -> &mut Self {
        self.tell(Event::JobState {
            job,
            name: name(job),
            status,
            failure_reason: reason.map(str::to_owned),
            exit_code: code,
            retried,
        })
    }

    fn log(&mut self, job: u64, text: &str) -> &mut Self {
        let offset = self.offsets.entry(job).or_default();
        let event =
            Event::Log { job, name: name(job), offset: *offset, bytes: Bytes::copy_from_slice(text.as_bytes()) };
        *offset += text.len() as u64;
        self.tell(event)
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        self.out += &self.screen.tell(&event, self.now);
        self
    }

    fn wait(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        if self.screen.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.out += &self.screen.tick(self.now);
        }
        self
    }

    /// What was printed since the last call.
    fn seen(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    /// The whole output, with control characters made visible.
    fn all(&mut self) -> String {
        self.out += &self.screen.finish();
        self.seen().replace('\x1b', "␛").replace('\r', "␍")
    }
}

fn name(job: u64) -> String {
    ["build-dev", "deploy-dev"][(job as usize - 1) % 2].to_owned()
}

fn stamped(stream: &str, flag: char, text: &str) -> String {
    format!("2026-11-21T17:03:02.000001Z {stream}{flag}{text}\n")
}

/// Two jobs of which one fails: what both of them and GitLab say.
fn story(look: Look) -> String {
    let mut test = Test::new(look);
    test.tell(Event::Started { engine: "process groups".into() });
    for job in [1, 2] {
        test.state(job, Status::Created).state(job, Status::Pending).state(job, Status::Running);
    }
    test.log(1, &stamped("00O", ' ', "Running with staffetta 0.1.0"));
    test.log(
        1,
        &(stamped("00O", ' ', "section_start:1:step_script\r\x1b[0K")
            + &stamped("00O", '+', "\x1b[36;1mscript\x1b[0;m")),
    );
    test.log(2, &stamped("01O", ' ', "\x1b[31mred"));
    test.log(2, &stamped("01O", ' ', "still red"));
    test.log(1, &stamped("01O", ' ', ""));
    test.log(1, &stamped("00O", ' ', "\x1b[31;1mERROR: Job failed: exit code 3\x1b[0;m"));
    test.failed(1, Status::Failed, Some("script_failure"), Some(3), false);
    test.wait(1250).tell(Event::Interrupted);
    test.state(2, Status::Canceling).state(2, Status::Canceled);
    test.state(3, Status::Pending);
    test.failed(3, Status::Failed, Some("runner_system_failure"), None, true);
    test.state(4, Status::Skipped);
    test.state(5, Status::Running).wait(2000).state(5, Status::Success);
    test.state(6, Status::Manual);
    test.all()
}

#[test]
fn a_story_on_a_terminal() {
    insta::assert_snapshot!(story(COLOURED));
}

#[test]
fn a_story_without_colours() {
    insta::assert_snapshot!(story(PIPE));
}

#[test]
fn a_story_in_quiet_lines() {
    insta::assert_snapshot!(story(Look { mode: Mode::Quiet, ..PIPE }));
}

#[test]
fn a_story_for_programs() {
    let story = story(Look { mode: Mode::Json, ..PIPE });
    for line in story.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["event"].is_string(), "{line}");
    }
    insta::assert_snapshot!(story);
}

#[test]
fn dots_of_a_single_job_appear_one_by_one() {
    let mut test = Test::new(PIPE);
    test.state(1, Status::Running);
    assert_eq!(test.log(1, "It works!\n").seen(), "build-dev  │ It works!\n");
    assert_eq!(test.log(1, ".").seen(), "build-dev  │ .");
    assert_eq!(test.log(1, ".").seen(), ".");
    assert_eq!(test.log(1, ".\n").seen(), ".\n");
    assert_eq!(test.log(1, ".\n").seen(), "build-dev  │ .\n");
}

#[test]
fn with_several_jobs_an_unfinished_line_waits_a_second() {
    let mut test = Test::new(PIPE);
    test.state(1, Status::Running).state(2, Status::Running);
    assert_eq!(test.log(1, "first ").seen(), "");
    assert_eq!(test.log(2, "whole\n").seen(), "deploy-dev │ whole\n");
    assert_eq!(test.wait(999).seen(), "");
    assert_eq!(test.wait(1).seen(), "build-dev  │ first ");
    assert_eq!(test.log(1, "second ").seen(), "");
    assert_eq!(test.log(2, "between\n").seen(), "\ndeploy-dev │ between\n");
    assert_eq!(test.log(1, "third\n").seen(), "build-dev  │ second third\n");
    assert_eq!(test.log(1, "alone").state(2, Status::Success).log(1, "!").seen(), "build-dev  │ alone!");
    assert_eq!(test.log(1, "\n").seen(), "\n");
}

#[test]
fn a_line_that_another_job_ended_is_not_ended_twice() {
    let mut test = Test::new(PIPE);
    test.state(1, Status::Running);
    assert_eq!(test.log(1, "part").seen(), "build-dev  │ part");
    assert_eq!(test.state(2, Status::Running).log(2, "x\n").seen(), "\ndeploy-dev │ x\n");
    assert_eq!(test.log(1, "\nnext\n").seen(), "build-dev  │ next\n");
}

#[test]
fn progress_is_written_over_itself_on_a_terminal_only() {
    let mut test = Test::new(TERMINAL);
    test.state(1, Status::Running);
    assert_eq!(test.log(1, "10%").seen(), "build-dev  │ 10%");
    assert_eq!(test.log(1, "\r20%").seen(), "\r\x1b[Kbuild-dev  │ 20%");
    assert_eq!(test.log(1, "\r20% done\n").seen(), " done\n");
    let mut test = Test::new(PIPE);
    test.state(1, Status::Running);
    assert_eq!(test.log(1, "10%").seen(), "build-dev  │ 10%");
    assert_eq!(test.log(1, "\r20%\r30%\n").seen(), "\nbuild-dev  │ 30%\n");
}

#[test]
fn a_style_never_reaches_the_next_name() {
    let mut test = Test::new(COLOURED);
    test.state(1, Status::Running).state(2, Status::Running);
    test.log(1, "\x1b[31mred").wait(1000).log(2, "plain\n");
    let lines: Vec<String> = test.all().lines().map(str::to_owned).collect();
    assert_eq!(lines, ["␛[36mbuild-dev  │␛[0m ␛[31mred␛[0m", "␛[33mdeploy-dev │␛[0m plain␛[0m"]);
}

#[test]
fn the_end_of_a_job_ends_its_line() {
    let mut test = Test::new(PIPE);
    test.state(1, Status::Running).log(1, "no line feed").state(1, Status::Success);
    assert_eq!(test.seen(), "build-dev  │ no line feed\n");
}

#[test]
fn the_display_prints_from_its_own_thread() {
    let (mut read, write) = std::io::pipe().unwrap();
    let display = Display::start(Screen::new(PIPE, ["a"]), write);
    let log = |offset, text: &str| Event::Log {
        job: 1,
        name: "a".into(),
        offset,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    };
    display.tell(log(0, "whole\nunfinished"));
    display.finish();
    let mut out = String::new();
    std::io::Read::read_to_string(&mut read, &mut out).unwrap();
    assert_eq!(out, "a │ whole\na │ unfinished\n");
}
