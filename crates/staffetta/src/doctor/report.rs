//! Findings as people read them, and as programs do.

use std::fmt::Write;

use serde::Serialize;

use super::{Finding, Verdict};

/// The findings of one environment, below its name: one line each, and what to do below it where there is something to do.
pub fn block(environment: &str, findings: &[Finding], colours: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = format!("{}\n", styled(colours, "1", environment));
    for finding in findings {
        let mark = styled(colours, colour(finding.verdict), &finding.verdict.mark().to_string());
        let _ = writeln!(text, "  {mark} {:width$}  {}", finding.check, finding.evidence);
        for (word, said) in [("breaks", &finding.breaks), ("fix", &finding.fix)] {
            for (index, line) in said.lines().enumerate() {
                let word = if index == 0 { format!("{word}:") } else { String::new() };
                let _ = writeln!(text, "      {word:7} {line}");
            }
        }
    }
    text
}

fn colour(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "32",
        Verdict::Skipped => "2",
        Verdict::Warning | Verdict::Unknown => "33",
        Verdict::Bad => "31",
    }
}

fn styled(colours: bool, code: &str, text: &str) -> String {
    if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// How many of each, in one line.
pub fn summary(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let parts = [
        (count(Verdict::Bad), "✘ that stop jobs"),
        (count(Verdict::Unknown), "? that could not be looked at"),
        (count(Verdict::Warning), "! warnings"),
        (count(Verdict::Skipped), "- not looked at"),
        (count(Verdict::Good), "✔ good"),
    ];
    let parts: Vec<_> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")).collect();
    parts.join(", ")
}

/// What `--json` prints: `verdict` is the worst of all findings; `findings` as [`Finding`] has them, those of one environment
/// together, environments in the order of the file.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub verdict: Verdict,
    pub findings: &'a [Finding],
}

/// The verdict on all findings.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good)
}
