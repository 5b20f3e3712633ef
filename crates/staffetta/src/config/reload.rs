//! Notices that `config.toml` or an `ecs.toml` that it names changed: by their times every three seconds, or when told to
//! look (SIGHUP).
//!
//! Files that do not parse are never applied: the manager goes on with what it has.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::read::load_noting;
use super::{Loaded, Mistakes};

/// The pause between two passes.
pub const INTERVAL: Duration = Duration::from_secs(3);
/// A file younger than this may still be being written: half of it can be valid TOML with half of the runners.
const SETTLE: Duration = Duration::from_secs(1);

/// What tells one version of a file from another; the inode, because an editor that replaces a file may keep its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Leave,
    Read,
}

/// Each file as it was read, and as it is now; none where it is not there.
fn decide(files: &[(Option<Stamp>, Option<Stamp>)], told: bool, now: SystemTime) -> Decision {
    // A time in the future is a clock that differs, not a file that is being written.
    let has_settled = |stamp: Stamp| now.duration_since(stamp.modified).map_or(true, |age| age >= SETTLE);
    let mut changed = files.iter().filter(|(seen, found)| seen != found).map(|(_, found)| found).peekable();
    if told || changed.peek().is_some() && changed.all(|found| found.is_none_or(has_settled)) {
        Decision::Read
    } else {
        Decision::Leave
    }
}

/// What one pass found.
#[derive(Debug)]
pub enum Pass {
    Unchanged,
    Changed(Loaded),
    /// The file cannot be used: keep the configuration, tell why. Said once for each version of the file.
    Refused(Mistakes),
}

pub struct Reload {
    file: PathBuf,
    /// Every file that the last reading wanted, as it was then.
    seen: Vec<(PathBuf, Option<Stamp>)>,
}

impl Reload {
    /// Loads the file for the first time. A change from now on is noticed, also one during this call.
    pub fn start(file: &Path) -> Result<(Self, Loaded), Mistakes> {
        let mut reload = Self { file: file.to_owned(), seen: Vec::new() };
        let loaded = reload.load()?;
        Ok((reload, loaded))
    }

    /// Looks once. `told` reads the files even if they look unchanged.
    pub fn pass(&mut self, told: bool, now: SystemTime) -> Pass {
        let files: Vec<_> = self.seen.iter().map(|(file, seen)| (*seen, stamp(file))).collect();
        match decide(&files, told, now) {
            Decision::Leave => Pass::Unchanged,
            Decision::Read => self.load().map_or_else(Pass::Refused, Pass::Changed),
        }
    }

    fn load(&mut self) -> Result<Loaded, Mistakes> {
        let seen = RefCell::default();
        let loaded = load_noting(&self.file, &|file| Vec::push(&mut seen.borrow_mut(), (file.to_owned(), stamp(file))));
        self.seen = seen.into_inner();
        loaded
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some(Stamp { modified: metadata.modified().ok()?, length: metadata.len(), inode: metadata.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "concurrent = 1\n";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn stamp_at(seconds: u64) -> Option<Stamp> {
        Some(Stamp { modified: at(seconds), length: 1, inode: 1 })
    }

    #[test]
    fn a_change_is_read_once_it_has_settled() {
        let now = at(1000);
        for (found, told, expected) in [
            (stamp_at(10), false, Decision::Leave),
            (stamp_at(10), true, Decision::Read),
            (stamp_at(900), false, Decision::Read),
            (stamp_at(999), false, Decision::Read),
            (stamp_at(1000), false, Decision::Leave),
            (stamp_at(1000), true, Decision::Read),
            // Another machine's clock, and an older file put in place.
            (stamp_at(5000), false, Decision::Read),
            (stamp_at(5), false, Decision::Read),
            (None, false, Decision::Read),
        ] {
            assert_eq!(decide(&[(stamp_at(10), found)], told, now), expected, "{found:?} told: {told}");
        }
    }

    #[test]
    fn two_files_that_are_saved_one_after_the_other_are_read_together() {
        let same = (stamp_at(10), stamp_at(10));
        let (settled, fresh) = ((stamp_at(10), stamp_at(900)), (stamp_at(10), stamp_at(1000)));
        for (files, expected) in [
            ([same, same], Decision::Leave),
            ([same, settled], Decision::Read),
            ([settled, fresh], Decision::Leave),
            ([settled, settled], Decision::Read),
        ] {
            assert_eq!(decide(&files, false, at(1000)), expected, "{files:?}");
        }
    }

    /// A runner as `[runners.custom]` names its `ecs.toml`.
    #[test]
    fn a_change_of_ecs_toml_is_noticed_too() {
        let directory = tempfile::tempdir().unwrap();
        let (file, ecs_toml) = (directory.path().join("config.toml"), directory.path().join("ecs.toml"));
        let args = format!("run_args = [\"--config\", \"{}\", \"custom\", \"run\"]", ecs_toml.display());
        fs::write(
            &file,
            format!(
                "concurrent = 1\n[[runners]]\nurl = \"http://g\"\ntoken = \"glrt-x\"\nexecutor = \"custom\"\n\
                 [runners.custom]\nrun_exec = \"/fargate\"\n{args}\n"
            ),
        )
        .unwrap();
        let write = |cluster: &str| {
            let table = "Subnet = \"s\"\nSecurityGroup = \"g\"\nTaskDefinition = \"t\"\n";
            fs::write(&ecs_toml, format!("[Fargate]\n{table}Cluster = {cluster}\n")).unwrap();
        };
        write("\"one\"");
        let (mut reload, _) = Reload::start(&file).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(matches!(reload.pass(false, later), Pass::Unchanged));

        write("broken");
        let Pass::Refused(mistakes) = reload.pass(false, later) else { panic!("applied") };
        assert_eq!(mistakes.0[0].file, ecs_toml);
        assert!(matches!(reload.pass(false, later), Pass::Unchanged), "said once");

        write("\"number two\"");
        let Pass::Changed(loaded) = reload.pass(false, later) else { panic!("not taken") };
        assert_eq!(loaded.config.runners[0].fargate.cluster, "number two");
    }

    #[test]
    fn a_broken_file_is_refused_once_and_a_repaired_one_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, GOOD).unwrap();
        let (mut reload, first) = Reload::start(&file).unwrap();
        assert_eq!(first.config.concurrent, 1);
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(matches!(reload.pass(false, later), Pass::Unchanged));

        fs::write(&file, "concurrent = ").unwrap();
        assert!(matches!(reload.pass(false, later), Pass::Refused(_)));
        assert!(matches!(reload.pass(false, later), Pass::Unchanged), "said once");
        assert!(matches!(reload.pass(true, later), Pass::Refused(_)), "but again when asked");

        fs::write(&file, "concurrent = 22").unwrap();
        let Pass::Changed(loaded) = reload.pass(false, later) else { panic!("not taken") };
        assert_eq!(loaded.config.concurrent, 22);

        fs::remove_file(&file).unwrap();
        assert!(matches!(reload.pass(false, later), Pass::Refused(_)));
        assert!(matches!(reload.pass(false, later), Pass::Unchanged));
    }

    #[test]
    fn a_file_that_is_being_written_waits_for_the_next_pass() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, GOOD).unwrap();
        let (mut reload, _) = Reload::start(&file).unwrap();
        fs::write(&file, "concurrent = 2\n").unwrap();
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        assert!(matches!(reload.pass(false, written), Pass::Unchanged));
        assert!(matches!(reload.pass(false, written + SETTLE), Pass::Changed(_)));
    }
}
