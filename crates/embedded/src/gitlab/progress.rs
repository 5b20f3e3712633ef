//! How a pipeline goes on: the rules by which GitLab starts, skips and holds back jobs. Pure.
//!
//! Source: GitLab's composite status and its list of the statuses that each `when` accepts [S].

use super::ci::When;
use super::view::Status;

/// One job as the rules see it: its newest attempt.
#[derive(Debug, Clone)]
pub(super) struct Node<'p> {
    /// Position of its pipeline stage.
    pub stage: usize,
    /// Positions of the jobs that it needs; `None`: it waits for all earlier stages.
    pub needs: Option<&'p [usize]>,
    pub when: When,
    pub status: Status,
    pub allow_failure: bool,
}

/// What a created job does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Enqueue,
    AwaitPerson,
    Skip,
}

/// The moves that are due now. Skipped jobs can make further ones due: ask again after applying them.
pub(super) fn moves(nodes: &[Node]) -> Vec<(usize, Move)> {
    let stages = nodes.iter().map(|node| node.stage + 1).max().unwrap_or(0);
    let mut of_stage = vec![Seen::default(); stages];
    for node in nodes {
        of_stage[node.stage].add(node);
    }
    // before[n]: everything in the stages before n.
    let mut before = vec![Seen::default(); stages];
    for stage in 1..stages {
        before[stage] = before[stage - 1].and(of_stage[stage - 1]);
    }
    let due = |node: &Node| {
        let seen = match node.needs {
            None => before[node.stage],
            Some(needs) => needs.iter().fold(Seen::default(), |mut seen, need| {
                seen.add(&nodes[*need]);
                seen
            }),
        };
        next(node.when, node.needs.is_some(), seen)
    };
    let created = nodes.iter().enumerate().filter(|(_, node)| node.status == Status::Created);
    created.filter_map(|(index, node)| Some((index, due(node)?))).collect()
}

fn next(when: When, dag: bool, earlier: Seen) -> Option<Move> {
    let earlier = earlier.status(dag).unwrap_or(Status::Success);
    if !earlier.is_complete() {
        return None;
    }
    let accepted = match when {
        When::OnSuccess | When::Manual => earlier == Status::Success || (!dag && earlier == Status::Skipped),
        When::OnFailure => earlier == Status::Failed,
        When::Always => matches!(earlier, Status::Success | Status::Failed | Status::Skipped),
        When::Never => false,
    };
    Some(match (accepted, when) {
        (false, _) => Move::Skip,
        (true, When::Manual) => Move::AwaitPerson,
        (true, _) => Move::Enqueue,
    })
}

/// The status of the whole pipeline.
pub(super) fn pipeline_status(nodes: &[Node]) -> Status {
    let mut seen = Seen::default();
    for node in nodes {
        seen.add(node);
    }
    seen.status(false).unwrap_or(Status::Skipped)
}

/// The set of statuses in a group of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen(u16);

impl Seen {
    const CREATED: u16 = 1;
    const PENDING: u16 = 1 << 1;
    const RUNNING: u16 = 1 << 2;
    const CANCELING: u16 = 1 << 3;
    const SUCCESS: u16 = 1 << 4;
    const FAILED: u16 = 1 << 5;
    const CANCELED: u16 = 1 << 6;
    const SKIPPED: u16 = 1 << 7;
    const MANUAL: u16 = 1 << 8;
    /// Failed or cancelled, and allowed to.
    const WARNING: u16 = 1 << 9;
    /// Waits for a person, and nobody waits for it.
    const IGNORED: u16 = 1 << 10;

    fn add(&mut self, node: &Node) {
        self.0 |= match (node.status, node.allow_failure) {
            (Status::Failed | Status::Canceled, true) => Self::WARNING,
            (Status::Manual, true) => Self::IGNORED,
            (Status::Created, _) => Self::CREATED,
            (Status::Pending, _) => Self::PENDING,
            (Status::Running, _) => Self::RUNNING,
            (Status::Canceling, _) => Self::CANCELING,
            (Status::Success, _) => Self::SUCCESS,
            (Status::Failed, false) => Self::FAILED,
            (Status::Canceled, false) => Self::CANCELED,
            (Status::Skipped, _) => Self::SKIPPED,
            (Status::Manual, false) => Self::MANUAL,
        };
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn any(self, of: u16) -> bool {
        self.0 & of != 0
    }

    fn only(self, of: u16) -> bool {
        self.0 & !of == 0
    }

    /// The order of the questions is GitLab's: each relies on the ones before. `None`: no jobs at all.
    fn status(self, dag: bool) -> Option<Status> {
        let passed = Self::SUCCESS | Self::SKIPPED | Self::WARNING | Self::IGNORED;
        let complete = Self::SUCCESS | Self::FAILED | Self::CANCELED | Self::SKIPPED | Self::WARNING;
        Some(if self.0 == 0 {
            return None;
        } else if dag && self.any(Self::SKIPPED | Self::IGNORED) {
            Status::Skipped
        } else if dag && !self.only(complete) {
            Status::Pending
        } else if self.only(Self::SKIPPED | Self::IGNORED) {
            Status::Skipped
        } else if self.only(passed) {
            Status::Success
        } else if self.only(Self::CREATED | Self::WARNING | Self::IGNORED) {
            Status::Created
        } else if self.only(passed | Self::CANCELED) {
            Status::Canceled
        } else if self.only(passed | Self::CANCELED | Self::CANCELING) {
            Status::Canceling
        } else if self.only(Self::PENDING | Self::CREATED | Self::SKIPPED | Self::WARNING | Self::IGNORED) {
            Status::Pending
        } else if self.any(Self::RUNNING | Self::PENDING | Self::CANCELING) {
            Status::Running
        } else if self.any(Self::MANUAL) {
            Status::Manual
        } else if self.any(Self::CREATED) {
            Status::Running
        } else {
            Status::Failed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(stage: usize, status: Status) -> Node<'static> {
        Node { stage, needs: None, when: When::OnSuccess, status, allow_failure: false }
    }

    fn needing(stage: usize, needs: &[usize]) -> Node<'_> {
        Node { needs: Some(needs), ..node(stage, Status::Created) }
    }

    #[test]
    fn a_stage_waits_for_the_whole_stage_before() {
        let nodes = [node(0, Status::Success), node(0, Status::Running), node(1, Status::Created)];
        assert_eq!(moves(&nodes), []);
        let nodes = [node(0, Status::Success), node(0, Status::Success), node(1, Status::Created)];
        assert_eq!(moves(&nodes), [(2, Move::Enqueue)]);
    }

    #[test]
    fn each_when_accepts_what_gitlab_accepts() {
        use Status::*;
        let table: [(When, bool, Status, Move); 17] = [
            (When::OnSuccess, false, Success, Move::Enqueue),
            (When::OnSuccess, false, Skipped, Move::Enqueue),
            (When::OnSuccess, false, Failed, Move::Skip),
            (When::OnSuccess, false, Canceled, Move::Skip),
            (When::OnSuccess, true, Success, Move::Enqueue),
            (When::OnSuccess, true, Skipped, Move::Skip),
            (When::OnFailure, false, Failed, Move::Enqueue),
            (When::OnFailure, false, Success, Move::Skip),
            (When::OnFailure, true, Failed, Move::Enqueue),
            (When::Always, false, Failed, Move::Enqueue),
            (When::Always, false, Success, Move::Enqueue),
            (When::Always, false, Canceled, Move::Skip),
            (When::Always, true, Skipped, Move::Enqueue),
            (When::Manual, false, Success, Move::AwaitPerson),
            (When::Manual, false, Failed, Move::Skip),
            (When::Manual, true, Skipped, Move::Skip),
            (When::Never, false, Success, Move::Skip),
        ];
        for (when, dag, earlier, expected) in table {
            let needs = dag.then_some([0].as_slice());
            let nodes = [node(0, earlier), Node { when, needs, ..node(1, Created) }];
            assert_eq!(moves(&nodes), [(1, expected)], "{when:?} dag={dag} after {earlier:?}");
        }
    }

    #[test]
    fn needs_do_not_wait_for_the_stage() {
        let nodes = [node(0, Status::Running), node(0, Status::Success), needing(1, &[1]), needing(1, &[])];
        assert_eq!(moves(&nodes), [(2, Move::Enqueue), (3, Move::Enqueue)]);
    }

    #[test]
    fn an_allowed_failure_counts_as_success() {
        let failed = Node { allow_failure: true, ..node(0, Status::Failed) };
        assert_eq!(moves(&[failed.clone(), node(1, Status::Created)]), [(1, Move::Enqueue)]);
        assert_eq!(pipeline_status(&[failed]), Status::Success);
    }

    #[test]
    fn an_optional_manual_job_holds_nobody_up_and_a_blocking_one_holds_the_stage() {
        let optional = Node { allow_failure: true, ..node(0, Status::Manual) };
        assert_eq!(moves(&[optional.clone(), node(1, Status::Created)]), [(1, Move::Enqueue)]);
        assert_eq!(moves(&[optional, needing(1, &[0])]), [(1, Move::Skip)]);
        let blocking = [node(0, Status::Manual), node(1, Status::Created)];
        assert_eq!(moves(&blocking), []);
        assert_eq!(pipeline_status(&blocking), Status::Manual);
    }

    #[test]
    fn a_pipeline_is_what_its_jobs_are() {
        use Status::*;
        let table: [(&[Status], Status); 9] = [
            (&[Success, Success], Success),
            (&[Success, Failed], Failed),
            (&[Success, Canceled], Canceled),
            (&[Failed, Canceled], Failed),
            (&[Success, Canceling], Canceling),
            (&[Failed, Running], Running),
            (&[Created, Created], Created),
            (&[Pending, Created], Pending),
            (&[Skipped], Skipped),
        ];
        for (statuses, expected) in table {
            let nodes: Vec<Node> = statuses.iter().map(|status| node(0, *status)).collect();
            assert_eq!(pipeline_status(&nodes), expected, "{statuses:?}");
        }
    }

    type Drawn = (usize, Option<Vec<usize>>, When, bool);

    /// Jobs in the order of their stages; each needs only jobs before it.
    fn any_jobs() -> impl Strategy<Value = Vec<Drawn>> {
        let when = prop_oneof![Just(When::OnSuccess), Just(When::OnFailure), Just(When::Always), Just(When::Manual)];
        let needs = proptest::option::of(proptest::collection::vec(0..100usize, 0..3));
        proptest::collection::vec((0..4usize, needs, when, any::<bool>()), 1..12).prop_map(|mut jobs| {
            jobs.sort_by_key(|job| job.0);
            for (index, job) in jobs.iter_mut().enumerate() {
                let needs = job.1.take().filter(|_| index > 0);
                job.1 = needs.map(|needs| needs.into_iter().map(|need| need % index).collect());
            }
            jobs
        })
    }

    proptest! {
        /// However and in whatever order the jobs end: the pipeline comes to an end, or waits for a person; and no job
        /// starts while one that it waits for has not ended, unless one that it needs never runs: as GitLab has it,
        /// that settles the matter at once.
        #[test]
        fn every_pipeline_ends(jobs in any_jobs(), ends in proptest::collection::vec((0..3u8, 0..12usize), 12)) {
            let mut nodes: Vec<Node> = (jobs.iter())
                .map(|(stage, needs, when, allow_failure)| Node {
                    stage: *stage,
                    needs: needs.as_deref(),
                    when: *when,
                    status: Status::Created,
                    allow_failure: *allow_failure,
                })
                .collect();
            let mut ends = ends.into_iter();
            loop {
                let due = moves(&nodes);
                for (index, step) in &due {
                    let waits_for = |other: usize| match nodes[*index].needs {
                        Some(needs) => needs.contains(&other),
                        None => nodes[other].stage < nodes[*index].stage,
                    };
                    let awaited: Vec<Status> =
                        (0..nodes.len()).filter(|other| waits_for(*other)).map(|other| nodes[other].status).collect();
                    let is = |of: [Status; 2]| awaited.iter().any(|status| of.contains(status));
                    let never_runs = nodes[*index].needs.is_some() && is([Status::Skipped, Status::Manual]);
                    let too_early = is([Status::Created, Status::Pending]) && !never_runs;
                    prop_assert!(*step != Move::Enqueue || !too_early, "job {index} of {nodes:?}");
                }
                let nothing_due = due.is_empty();
                for (index, step) in due {
                    nodes[index].status = match step {
                        Move::Enqueue => Status::Pending,
                        Move::AwaitPerson => Status::Manual,
                        Move::Skip => Status::Skipped,
                    };
                }
                let pending: Vec<usize> =
                    (0..nodes.len()).filter(|index| nodes[*index].status == Status::Pending).collect();
                match (pending.as_slice(), nothing_due) {
                    ([], true) => break,
                    ([], false) => {}
                    (pending, _) => {
                        let (end, which) = ends.next().expect("one end for each job");
                        let end = [Status::Success, Status::Failed, Status::Canceled][usize::from(end)];
                        nodes[pending[which % pending.len()]].status = end;
                    }
                }
            }
            let status = pipeline_status(&nodes);
            let blocked = nodes.iter().any(|node| node.status == Status::Manual);
            let waiting = nodes.iter().any(|node| node.status == Status::Created);
            prop_assert!(blocked || !waiting, "{status:?} {nodes:?}");
            prop_assert!(status.is_complete() || (blocked && status == Status::Manual), "{status:?} {nodes:?}");
        }
    }
}
