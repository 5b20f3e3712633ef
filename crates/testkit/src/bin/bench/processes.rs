//! What the kernel says about a process.

use std::fs::read_to_string;

use anyhow::Context;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Resident memory in MB.
pub struct Memory {
    pub now: f64,
    pub peak: f64,
}

pub fn memory(pid: Pid) -> anyhow::Result<Memory> {
    let status = read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    Ok(Memory { now: field(&status, "VmRSS:")?, peak: field(&status, "VmHWM:")? })
}

/// Its memory in MB, where what several processes share counts for each with its part only.
pub fn proportional(pid: Pid) -> anyhow::Result<f64> {
    field(&read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the process has ended")?, "Pss:")
}

/// A field of `/proc/PID/status` or `smaps_rollup` that stands in KiB there, in MB.
pub fn field(status: &str, name: &str) -> anyhow::Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("no {name} in the status of the process"))? * 1024.0 / 1e6)
}

/// Seconds of processor time so far, its own and the kernel's for it.
pub fn cpu_seconds(pid: Pid) -> anyhow::Result<f64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // The name in parentheses may hold anything; after it the fields from the third on.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok());
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
    Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) / per_second)
}
