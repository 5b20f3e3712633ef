//! Fargate's sizes: which cpu goes with which memory.

use crate::config::section::Section;

/// CPU units, and the MiB that go with them: from, to, step (facts 5.1; Amazon ECS Developer Guide, "Task CPU and memory",
/// 2026). 32 vCPU have three amounts and stand apart.
const STEPS: [(u32, u32, u32, u32); 6] = [
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];
const LISTS: [(u32, &[u32]); 2] = [(256, &[512, 1024, 2048]), (32_768, &[61_440, 122_880, 249_856])];

/// The MiB that Fargate has for so many CPU units, ascending; empty for a number that is no size.
fn memories(cpu: u32) -> Vec<u32> {
    let list = LISTS.iter().find(|(size, _)| *size == cpu).map(|(_, list)| list.to_vec());
    let step = STEPS.iter().find(|(size, ..)| *size == cpu);
    let stepped = step.map(|(_, from, to, step)| (*from..=*to).step_by(*step as usize).collect());
    list.or(stepped).unwrap_or_default()
}

/// Whether Fargate has tasks of so many CPU units and MiB.
pub fn is_fargate_size(cpu: u32, memory: u32) -> bool {
    memories(cpu).contains(&memory)
}

fn sizes() -> Vec<u32> {
    let mut all: Vec<u32> = LISTS.iter().map(|(cpu, _)| *cpu).chain(STEPS.iter().map(|(cpu, ..)| *cpu)).collect();
    all.sort_unstable();
    all
}

/// The pairs that are nearest to what was asked for: with this cpu, and with this memory.
fn nearest(cpu: u32, memory: u32) -> Vec<(u32, u32)> {
    let near = |from: Vec<u32>, to: u32| from.into_iter().min_by_key(|value| value.abs_diff(to));
    let by_cpu = near(memories(cpu), memory).map(|memory| (cpu, memory));
    let having: Vec<u32> = sizes().into_iter().filter(|cpu| memories(*cpu).contains(&memory)).collect();
    let by_memory = near(having, cpu).map(|cpu| (cpu, memory));
    let mut pairs: Vec<_> = by_cpu.into_iter().chain(by_memory).collect();
    if pairs.is_empty() {
        let all = sizes().into_iter().flat_map(|cpu| memories(cpu).into_iter().map(move |memory| (cpu, memory)));
        pairs.extend(all.min_by_key(|(c, m)| u64::from(c.abs_diff(cpu)) + u64::from(m.abs_diff(memory))));
    }
    pairs
}

/// `1 vCPU` and `1vCPU` are 1024 units, `1024` too.
fn cpu_units(text: &str) -> Option<u32> {
    amount(text, "vcpu")
}

/// `2 GB` is 2048 MiB.
fn mebibytes(text: &str) -> Option<u32> {
    amount(text, "gb")
}

fn amount(text: &str, unit: &str) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    let Some(number) = text.strip_suffix(unit) else { return text.parse().ok() };
    let units = number.trim_end().parse::<f64>().ok()? * 1024.0;
    (units.fract() == 0.0 && (0.0..1e9).contains(&units)).then_some(units as u32)
}

/// Reads `cpu` and `memory`, which only pair in some ways.
pub fn size(section: &mut Section, default: (u32, u32)) -> (u32, u32) {
    let cpu = section.amount("cpu", "CPU units such as 1024, or \"1 vCPU\"", cpu_units);
    let memory = section.amount("memory", "MiB such as 2048, or \"2 GB\"", mebibytes);
    if cpu.is_none() && section.contains("cpu") || memory.is_none() && section.contains("memory") {
        return default;
    }
    // One without the other would pair with a default that nobody sees.
    let (cpu, memory) = match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu.value, memory.value),
        (None, None) => return default,
        (cpu, _) => {
            let missing = if cpu.is_some() { "memory" } else { "cpu" };
            section.missing(missing, "cpu and memory go in pairs: give both or none");
            return default;
        }
    };
    if !is_fargate_size(cpu, memory) {
        let near: Vec<_> = nearest(cpu, memory).iter().map(|(cpu, memory)| format!("{cpu} with {memory}")).collect();
        let advice =
            format!("and `memory` are {cpu} and {memory}, which Fargate does not offer: take {}", near.join(" or "));
        section.wrong("cpu", &advice);
    }
    (cpu, memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_fargate_writes_them() {
        for (text, units) in [("1 vCPU", 1024), (".25 vcpu", 256), ("0.5vCPU", 512), ("1024", 1024)] {
            assert_eq!(cpu_units(text), Some(units), "{text}");
        }
        assert_eq!(mebibytes("244 GB"), Some(249_856));
        for text in ["", "vCPU", "1 GB", "-1 vCPU", "0.3 vCPU", "nan vCPU", "inf vCPU", "1e30 vCPU"] {
            assert_eq!(cpu_units(text), None, "{text}");
        }
    }

    #[test]
    fn the_sizes_are_fargates() {
        assert_eq!(memories(256), [512, 1024, 2048]);
        assert_eq!((memories(4096).first(), memories(4096).last()), (Some(&8192), Some(&30_720)));
        assert_eq!(memories(8192).len(), 12);
        assert_eq!(memories(300), [0; 0]);
    }

    #[test]
    fn the_nearest_pairs_keep_the_cpu_or_the_memory() {
        assert_eq!(nearest(256, 4096), [(256, 2048), (512, 4096)]);
        assert_eq!(nearest(1024, 2000), [(1024, 2048)]);
        assert_eq!(nearest(300, 700), [(256, 512)]);
        assert_eq!(nearest(u32::MAX, u32::MAX), [(32_768, 249_856)]);
    }
}
