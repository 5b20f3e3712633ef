//! `process_*`: what Linux says of this process.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::families::Families;

/// Of a second; Linux shows times to programs in these on every machine.
const TICKS: f64 = 100.0;

pub fn measure_into(families: &Families) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        families.cpu_seconds.set(stat.cpu_ticks / TICKS);
        families.virtual_bytes.set(stat.virtual_bytes);
        if let Some(boot) = boot_time() {
            families.start_time.set(boot + stat.start_ticks / TICKS);
        }
    }
    if let Some(kibibytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident) {
        families.resident_bytes.set(kibibytes * 1024.0);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        families.open_fds.set(open.count() as f64);
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        families.max_fds.set(soft as f64);
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: f64,
}

impl Stat {
    /// Fields by their numbers in proc(5). The program's name may hold anything, so they are counted from its end.
    fn parse(text: &str) -> Option<Self> {
        let after_name = text.rsplit_once(')')?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)?, virtual_bytes: field(23)? })
    }
}

/// In KiB; the pages of `stat` are of a size that differs between machines.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_moves_no_field() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 4 0 999 4096 5 18446744073709551615 1 1";
        let expected = Stat { cpu_ticks: 42.0, start_ticks: 999.0, virtual_bytes: 4096.0 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (short) S"), None);
        assert_eq!(resident("VmPeak:\t  9 kB\nVmRSS:\t    5120 kB\n"), Some(5120.0));
    }
}
