//! How often each API was called: the budget is counted, not estimated.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The AWS calls that are made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    RunTask,
    DescribeTasks,
    StopTask,
    ListTasks,
    /// EC2's; the others are ECS's.
    DescribeNetworkInterfaces,
}

impl Api {
    pub fn name(self) -> &'static str {
        match self {
            Self::RunTask => "RunTask",
            Self::DescribeTasks => "DescribeTasks",
            Self::StopTask => "StopTask",
            Self::ListTasks => "ListTasks",
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
        }
    }
}

/// Calls so far of all runners that share a region and endpoint, every attempt counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    pub run_task: u64,
    pub describe_tasks: u64,
    pub stop_task: u64,
    pub list_tasks: u64,
    pub describe_network_interfaces: u64,
    /// How many of them were throttled.
    pub throttled: u64,
}

impl Calls {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            run_task: self.run_task + other.run_task,
            describe_tasks: self.describe_tasks + other.describe_tasks,
            stop_task: self.stop_task + other.stop_task,
            list_tasks: self.list_tasks + other.list_tasks,
            describe_network_interfaces: self.describe_network_interfaces + other.describe_network_interfaces,
            throttled: self.throttled + other.throttled,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    run_task: AtomicU64,
    describe_tasks: AtomicU64,
    stop_task: AtomicU64,
    list_tasks: AtomicU64,
    describe_network_interfaces: AtomicU64,
    throttled: AtomicU64,
}

impl Counters {
    pub(super) fn called(&self, api: Api) {
        let counter = match api {
            Api::RunTask => &self.run_task,
            Api::DescribeTasks => &self.describe_tasks,
            Api::StopTask => &self.stop_task,
            Api::ListTasks => &self.list_tasks,
            Api::DescribeNetworkInterfaces => &self.describe_network_interfaces,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn throttled(&self) {
        self.throttled.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Calls {
        Calls {
            run_task: self.run_task.load(Relaxed),
            describe_tasks: self.describe_tasks.load(Relaxed),
            stop_task: self.stop_task.load(Relaxed),
            list_tasks: self.list_tasks.load(Relaxed),
            describe_network_interfaces: self.describe_network_interfaces.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
        }
    }
}
