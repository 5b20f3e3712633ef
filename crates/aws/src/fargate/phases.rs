//! How long each part of a task's life took, by ECS's own clock.

use std::time::SystemTime;

use super::task::Task;

/// One part of a task's life that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    pub name: &'static str,
    pub seconds: f64,
}

/// The phases in their order. ECS leaves stamps out: the phase that would have ended there is then part of the next
/// one, so that the seconds always add up to the time from the first stamp to the last.
pub fn phases(task: &Task) -> Vec<Phase> {
    let at = &task.timestamps;
    let Some(mut last) = at.created else { return Vec::new() };
    let ends: [(&'static str, Option<SystemTime>); 6] = [
        ("network interface", at.connectivity),
        ("machine", at.pull_started),
        ("image pull", at.pull_stopped),
        ("container start", at.started),
        // A task that never started did not run: what it took to give up is part of its stop.
        ("run", at.execution_stopped.or(at.stopping).filter(|_| at.started.is_some())),
        ("stop", at.stopped),
    ];
    let mut phases = Vec::new();
    for (name, end) in ends {
        let Some(end) = end else { continue };
        // Stamps out of order are seen when two of ECS's machines disagree: that phase took no time then.
        phases.push(Phase { name, seconds: end.duration_since(last).unwrap_or_default().as_secs_f64() });
        last = last.max(end);
    }
    phases
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use job::ids::TaskArn;
    use proptest::prelude::*;

    use super::*;
    use crate::fargate::task::Timestamps;

    fn at(seconds: f64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
    }

    fn task(timestamps: Timestamps) -> Task {
        Task { timestamps, ..Task::unseen(TaskArn::new("arn")) }
    }

    #[test]
    fn a_whole_life_has_six_phases() {
        let task = task(Timestamps {
            created: at(0.0),
            connectivity: at(4.0),
            pull_started: at(10.25),
            pull_stopped: at(19.5),
            started: at(20.5),
            stopping: at(80.0),
            execution_stopped: at(80.5),
            stopped: at(92.0),
        });
        let phases: Vec<_> = phases(&task).into_iter().map(|phase| (phase.name, phase.seconds)).collect();
        assert_eq!(
            phases,
            [
                ("network interface", 4.0),
                ("machine", 6.25),
                ("image pull", 9.25),
                ("container start", 1.0),
                ("run", 60.0),
                ("stop", 11.5),
            ]
        );
    }

    #[test]
    fn a_missing_stamp_is_part_of_the_next_phase() {
        let task = task(Timestamps { created: at(0.0), started: at(7.0), ..Timestamps::default() });
        assert_eq!(phases(&task), [Phase { name: "container start", seconds: 7.0 }]);
        assert_eq!(phases(&Task::unseen(TaskArn::new("arn"))), []);
    }

    #[test]
    fn a_task_that_never_started_did_not_run() {
        let task = task(Timestamps { created: at(0.0), stopping: at(3.0), stopped: at(5.0), ..Timestamps::default() });
        assert_eq!(phases(&task), [Phase { name: "stop", seconds: 5.0 }]);
    }

    proptest! {
        #[test]
        fn phases_are_never_negative_and_add_up(
            created in 0.0f64..10.0,
            started in 0.0f64..100.0,
            rest in prop::collection::vec(prop::option::of(0.0f64..100.0), 5),
        ) {
            let stamp = |index: usize| rest[index].and_then(at);
            let task = task(Timestamps {
                created: at(created),
                connectivity: stamp(0),
                pull_started: stamp(1),
                pull_stopped: stamp(2),
                started: at(started),
                stopping: None,
                execution_stopped: stamp(3),
                stopped: stamp(4),
            });
            let latest = rest.iter().flatten().fold(created.max(started), |a, b| a.max(*b));
            let phases = phases(&task);
            prop_assert!(phases.iter().all(|phase| phase.seconds >= 0.0));
            let sum: f64 = phases.iter().map(|phase| phase.seconds).sum();
            prop_assert!((sum - (latest - created)).abs() < 1e-6, "{sum} of {}", latest - created);
        }
    }
}
