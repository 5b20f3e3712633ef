//! The sizes that Fargate has (facts 5.1), and the ways to write them.

use super::failure::Failure;

/// Memory in MiB that belongs to a number of CPU units.
fn memory_for(cpu: u32) -> Option<Vec<u32>> {
    let gigabytes = |from: u32, to: u32, step: usize| (from..=to).step_by(step).map(|gb| gb * 1024).collect();
    Some(match cpu {
        256 => vec![512, 1024, 2048],
        512 => gigabytes(1, 4, 1),
        1024 => gigabytes(2, 8, 1),
        2048 => gigabytes(4, 16, 1),
        4096 => gigabytes(8, 30, 1),
        8192 => gigabytes(16, 60, 4),
        16384 => gigabytes(32, 120, 8),
        32768 => vec![60 * 1024, 120 * 1024, 244 * 1024],
        _ => return None,
    })
}

/// Checks a pair as RegisterTaskDefinition and RunTask do, and gives it in units and MiB.
pub(super) fn check(cpu: &str, memory: &str) -> Result<(u32, u32), Failure> {
    let cpu = amount(cpu, "vcpu").ok_or_else(|| Failure::client("Invalid 'cpu' setting for task."))?;
    let memory = amount(memory, "gb").ok_or_else(|| Failure::client("Invalid 'memory' setting for task."))?;
    let allowed = memory_for(cpu).ok_or_else(|| Failure::client("Invalid 'cpu' setting for task."))?;
    if !allowed.contains(&memory) {
        return Err(Failure::client("No Fargate configuration exists for given values."));
    }
    Ok((cpu, memory))
}

/// `1024`, `1 vCPU`, `.25vcpu`, `2 GB`: units of 1024 either way.
fn amount(written: &str, unit: &str) -> Option<u32> {
    let written = written.trim().to_ascii_lowercase();
    match written.strip_suffix(unit) {
        Some(number) => {
            let number: f64 = number.trim().parse().ok()?;
            ((0.0..=1024.0).contains(&number)).then_some((number * 1024.0) as u32)
        }
        None => written.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_the_table_are_accepted_however_they_are_written() {
        assert_eq!(check("256", "512"), Ok((256, 512)));
        assert_eq!(check(".25 vCPU", "2GB"), Ok((256, 2048)));
        assert_eq!(check("1 vcpu", "8 GB"), Ok((1024, 8192)));
        assert_eq!(check("8192", "20480"), Ok((8192, 20480)));
    }

    #[test]
    fn other_pairs_are_refused_with_the_text_of_ecs() {
        let text = |cpu, memory| check(cpu, memory).unwrap_err().message;
        assert_eq!(text("256", "4096"), "No Fargate configuration exists for given values.");
        assert_eq!(text("8192", "17408"), "No Fargate configuration exists for given values.");
        assert_eq!(text("300", "512"), "Invalid 'cpu' setting for task.");
        assert_eq!(text("256", "much"), "Invalid 'memory' setting for task.");
    }
}
