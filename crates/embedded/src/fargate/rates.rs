//! ECS's token buckets (facts 3.1 and 3.2): small, shared by several calls, and the reason why a thousand jobs take a
//! minute to launch.

use std::collections::HashMap;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bucket {
    ClusterResourceModify,
    ClusterResourceRead,
    RunTaskOnFargate,
    TaskDefinitionModify,
    TaskDefinitionRead,
    ClusterRead,
    ClusterModify,
    LaunchOnDemand,
    LaunchSpot,
}

impl Bucket {
    /// The buckets that one call of an ECS API draws from, one token each.
    pub(super) fn of_call(api: &str) -> &'static [Bucket] {
        match api {
            "RunTask" => &[Bucket::ClusterResourceModify, Bucket::RunTaskOnFargate],
            "StopTask" => &[Bucket::ClusterResourceModify],
            "DescribeTasks" | "ListTasks" => &[Bucket::ClusterResourceRead],
            "RegisterTaskDefinition" | "DeregisterTaskDefinition" => &[Bucket::TaskDefinitionModify],
            "DescribeTaskDefinition" | "ListTaskDefinitions" => &[Bucket::TaskDefinitionRead],
            "DescribeClusters" | "ListClusters" => &[Bucket::ClusterRead],
            "CreateCluster" | "PutClusterCapacityProviders" => &[Bucket::ClusterModify],
            _ => &[],
        }
    }

    /// Burst, and tokens per second.
    fn size(self) -> (f64, f64) {
        match self {
            Bucket::ClusterResourceModify => (100.0, 40.0),
            Bucket::ClusterResourceRead => (100.0, 20.0),
            Bucket::RunTaskOnFargate => (20.0, 20.0),
            Bucket::TaskDefinitionModify => (20.0, 1.0),
            Bucket::TaskDefinitionRead | Bucket::ClusterRead => (50.0, 20.0),
            Bucket::ClusterModify => (20.0, 1.0),
            Bucket::LaunchOnDemand | Bucket::LaunchSpot => (100.0, 20.0),
        }
    }
}

/// The fill of every bucket that was used so far.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<Bucket, (f64, Instant)>);

impl Rates {
    /// Takes `tokens` from each of `buckets`, or nothing from any of them.
    pub(super) fn take(&mut self, buckets: &[Bucket], tokens: u32, now: Instant) -> bool {
        for bucket in buckets {
            let (burst, per_second) = bucket.size();
            let (fill, since) = self.0.entry(*bucket).or_insert((burst, now));
            *fill = (*fill + now.saturating_duration_since(*since).as_secs_f64() * per_second).min(burst);
            *since = now;
        }
        let tokens = f64::from(tokens);
        if buckets.iter().any(|bucket| self.0[bucket].0 < tokens) {
            return false;
        }
        for bucket in buckets {
            if let Some((fill, _)) = self.0.get_mut(bucket) {
                *fill -= tokens;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_refill() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let calls = Bucket::of_call("RunTask");
        let given = |rates: &mut Rates, now| (0..200).filter(|_| rates.take(calls, 1, now)).count();
        assert_eq!(given(&mut rates, start), 20);
        assert_eq!(given(&mut rates, start + Duration::from_millis(500)), 10);
        assert_eq!(given(&mut rates, start + Duration::from_secs(60)), 20);
    }

    #[test]
    fn a_refused_call_costs_nothing() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        while rates.take(&[Bucket::RunTaskOnFargate], 1, now) {}
        assert!(!rates.take(Bucket::of_call("RunTask"), 1, now));
        let left = (0..200).filter(|_| rates.take(&[Bucket::ClusterResourceModify], 1, now)).count();
        assert_eq!(left, 100);
    }

    #[test]
    fn describe_and_list_share_one_bucket() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        while rates.take(Bucket::of_call("DescribeTasks"), 1, now) {}
        assert!(!rates.take(Bucket::of_call("ListTasks"), 1, now));
        assert!(rates.take(Bucket::of_call("StopTask"), 1, now));
    }
}
