//! Sweep: ends tasks of this runner whose time is over, because the machine that should have cleaned up is no more.
//!
//! A driver has no process between two jobs, so it is done now and then at the end of a `cleanup`.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ::job::task;
use aws::fargate::Task;

use super::cleanup::tasks_of_runner;
use super::{Call, seconds, warn};

/// Two calls of ECS in this time are no burden, and a forgotten task costs cents in it.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Sweeps if it is due. The job is over whatever comes of it. As the manager itself, not as the job's role: that may be
/// one of another account, or may not look.
pub async fn sweep(call: &Call, now: SystemTime) {
    let Ok(directory) = call.metadata_directory() else { return };
    let stamp = directory.join(stamp(&call.job.runner, &call.settings.fargate.cluster));
    if !is_due(last(&stamp), now) {
        return;
    }
    // First the stamp: of fifty jobs that end together one looks.
    if let Err(error) = File::create(&stamp).and_then(|file| file.set_modified(now)) {
        return tracing::debug!(%error, "no sweep");
    }
    let Ok(fargate) = call.fargate(None).await else { return };
    let tasks = match tasks_of_runner(call, &fargate).await {
        Ok(tasks) => tasks,
        Err(error) => return tracing::debug!(%error, "no sweep"),
    };
    for task in tasks.iter().filter(|task| is_over(task, now)) {
        match fargate.stop_task(&task.arn, "the job's time is over").await {
            Ok(()) => warn(format_args!("stopped the task {} that an earlier job left behind", task.arn.id())),
            Err(error) => warn(format_args!("cannot stop the forgotten task {}: {error}", task.arn.id())),
        }
    }
}

/// A file in the metadata directory; its time is that of the last sweep. Several runners may share the directory.
fn stamp(runner: &str, cluster: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    format!(".last-sweep-{runner}-{}", cluster.chars().map(safe).take(100).collect::<String>())
}

fn last(stamp: &Path) -> Option<SystemTime> {
    fs::metadata(stamp).and_then(|stamp| stamp.modified()).ok()
}

/// A stamp of the future is that of a clock which was wrong.
fn is_due(last: Option<SystemTime>, now: SystemTime) -> bool {
    last.is_none_or(|last| now.duration_since(last).map_or(true, |age| age >= INTERVAL))
}

/// A task without a deadline is not one of ours.
fn is_over(task: &Task, now: SystemTime) -> bool {
    let deadline = task.environment.get(task::DEADLINE).and_then(|seconds| seconds.parse().ok());
    deadline.is_some_and(|deadline: u64| deadline < seconds(now))
}

#[cfg(test)]
mod tests {
    use ::job::ids::TaskArn;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn it_is_due_at_first_and_every_ten_minutes() {
        let now = at(10_000);
        for (last, due) in
            [(None, true), (Some(9_999), false), (Some(9_401), false), (Some(9_400), true), (Some(10_001), true)]
        {
            assert_eq!(is_due(last.map(at), now), due, "{last:?}");
        }
    }

    #[test]
    fn only_a_task_whose_deadline_has_passed_is_ended() {
        for (deadline, over) in [(None, false), (Some("9999"), true), (Some("10000"), false), (Some("soon"), false)] {
            let mut task = Task::unseen(TaskArn::new("arn"));
            if let Some(deadline) = deadline {
                task.environment.insert(task::DEADLINE.to_owned(), deadline.to_owned());
            }
            assert_eq!(is_over(&task, at(10_000)), over, "{deadline:?}");
        }
    }
}
