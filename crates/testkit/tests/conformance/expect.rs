//! Compares what happened with what a case expects. Every difference is told, not only the first.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use embedded::gitlab::{ArtifactView, JobView, RequestLog, Server};
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use crate::case::{Artifact, Case, Entry, Job, Request, Text};
use crate::text;

/// The differences, each a line for a person.
pub fn differences(case: &Case, gitlab: &Server) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, expected) in &case.expect {
        let Some(job) = gitlab.job_named(name) else {
            wrong.push(format!("there is no job {name}"));
            continue;
        };
        let of_name = gitlab.jobs().iter().filter(|job| job.name == *name).count();
        let trace = gitlab.trace(job.id).unwrap_or_default();
        let mut found = Vec::new();
        outcome(expected, &job, of_name, &mut found);
        log(expected, &trace, &mut found);
        if let Some(artifacts) = &expected.artifacts {
            files(artifacts, &job.artifacts, &mut found);
        }
        wrong.extend(found.into_iter().map(|difference| format!("{name}: {difference}")));
    }
    let made = gitlab.requests();
    case.requests.iter().for_each(|expected| requests(expected, &made, &mut wrong));
    wrong
}

fn outcome(expected: &Job, job: &JobView, of_name: usize, wrong: &mut Vec<String>) {
    let mut compare = |what: &str, expected: Option<String>, is: String| {
        if let Some(expected) = expected.filter(|expected| *expected != is) {
            wrong.push(format!("{what} is {is}, not {expected}"));
        }
    };
    compare("the state", Some(expected.state.clone()), job.status.to_string());
    let code = job.exit_code.map_or("none".into(), |code| code.to_string());
    compare("the exit code", expected.exit_code.map(|code| code.to_string()), code);
    compare("the failure reason", expected.failure_reason.clone(), job.failure_reason.clone().unwrap_or("none".into()));
    compare("allowed to fail", expected.allowed_to_fail.map(|is| is.to_string()), job.allow_failure.to_string());
    compare("the number of attempts", expected.attempts.map(|count| count.to_string()), of_name.to_string());
    if job.trace_matches == Some(false) {
        wrong.push("the log's checksum or size is not what GitLab stored".into());
    }
}

fn log(expected: &Job, trace: &[u8], wrong: &mut Vec<String>) {
    let read = text::read(trace);
    compare_text(&expected.trace, "the log", &read.text, wrong);
    compare_text(&expected.raw_trace, "the raw log", &String::from_utf8_lossy(trace), wrong);
    for (name, expected) in &expected.section {
        match read.sections.get(name) {
            Some(text) => compare_text(expected, &format!("section {name}"), text, wrong),
            None => wrong.push(format!("there is no section {name}, only {}", read.begun.join(", "))),
        }
    }
    if let Some(sections) = expected.sections.as_ref().filter(|sections| **sections != read.begun) {
        wrong.push(format!("the sections are {}, not {}", read.begun.join(", "), sections.join(", ")));
    }
    if let Some(most) = expected.trace_bytes_at_most.filter(|most| trace.len() as u64 > *most) {
        wrong.push(format!("the log has {} bytes, more than {most}", trace.len()));
    }
    if let Some(least) = expected.trace_bytes_at_least.filter(|least| (trace.len() as u64) < *least) {
        wrong.push(format!("the log has {} bytes, fewer than {least}", trace.len()));
    }
}

fn compare_text(expected: &Text, what: &str, text: &str, wrong: &mut Vec<String>) {
    let has_line = |line: &String| text.lines().any(|other| other == line);
    wrong
        .extend(expected.lines.iter().filter(|line| !has_line(line)).map(|line| format!("{what} lacks line {line:?}")));
    wrong
        .extend(expected.no_lines.iter().filter(|line| has_line(line)).map(|line| format!("{what} has line {line:?}")));
    let has = |part: &&String| text.contains(part.as_str());
    wrong.extend(expected.has.iter().filter(|part| !has(part)).map(|part| format!("{what} lacks {part:?}")));
    wrong.extend(expected.lacks.iter().filter(has).map(|part| format!("{what} has {part:?}")));
    let mut from = 0;
    for part in &expected.order {
        match text[from..].find(part.as_str()) {
            Some(at) => from += at + part.len(),
            None => {
                wrong.push(format!("{what} lacks {part:?} after what stands before it"));
                break;
            }
        }
    }
    let matches = |pattern: &&String| lines_regex(pattern).is_match(text);
    let missing = expected.matches.iter().filter(|pattern| !matches(pattern));
    wrong.extend(missing.map(|pattern| format!("{what} has no match of {pattern:?}")));
    let unwanted = expected.no_matches.iter().filter(matches);
    wrong.extend(unwanted.map(|pattern| format!("{what} has a match of {pattern:?}")));
}

fn lines_regex(pattern: &str) -> Regex {
    let lines = syntax::Config::new().multi_line(true);
    Regex::builder().syntax(lines).build(pattern).unwrap_or_else(|error| panic!("{pattern:?}: {error}"))
}

/// Exactly these files, in any order.
fn files(expected: &[Artifact], are: &[ArtifactView], wrong: &mut Vec<String>) {
    let mut left: Vec<&ArtifactView> = are.iter().collect();
    for artifact in expected {
        let name = artifact.filename.as_deref();
        let same = |view: &&ArtifactView| view.kind == artifact.kind && name.is_none_or(|name| view.filename == name);
        match left.iter().position(same) {
            Some(at) => file(artifact, left.swap_remove(at), wrong),
            None => wrong.push(format!("no artifact {} {} was uploaded", artifact.kind, name.unwrap_or_default())),
        }
    }
    wrong.extend(left.iter().map(|view| format!("artifact {} {} is one too many", view.kind, view.filename)));
}

fn file(expected: &Artifact, view: &ArtifactView, wrong: &mut Vec<String>) {
    let what = format!("artifact {}", view.kind);
    if let Some(format) = expected.format.as_ref().filter(|format| **format != view.format) {
        wrong.push(format!("{what} has the format {}, not {format}", view.format));
    }
    if expected.expire_in.is_some() && expected.expire_in != view.expire_in {
        wrong.push(format!("{what} expires in {:?}, not {:?}", view.expire_in, expected.expire_in));
    }
    let content = std::fs::read(&view.path).unwrap_or_default();
    if let Some(text) = expected.content.as_ref().filter(|text| text.as_bytes() != content) {
        wrong.push(format!("{what} is {:?}, not {text:?}", String::from_utf8_lossy(&content)));
    }
    let Some(entries) = &expected.entries else { return };
    let found = match view.format.as_str() {
        "gzip" => gzip_members(&content),
        _ => zip_entries(&view.path),
    };
    match found {
        Ok(found) => compare_entries(entries, &found, &what, wrong),
        Err(error) => wrong.push(format!("{what} cannot be read: {error}")),
    }
}

/// One entry of an archive.
pub struct Found {
    content: Vec<u8>,
    /// With the bits of its kind; `None` where the archive does not say.
    mode: Option<u32>,
}

/// All entries of a zip by their names, folders with a slash at the end.
pub fn zip_entries(path: &Path) -> Result<BTreeMap<String, Found>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let file = std::fs::File::open(path).map_err(|error| text(&error))?;
    let mut zip = zip::ZipArchive::new(file).map_err(|error| text(&error))?;
    let mut found = BTreeMap::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| text(&error))?;
        let (name, mode) = (String::from_utf8_lossy(entry.name_raw()).into_owned(), entry.unix_mode());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|error| text(&error))?;
        found.insert(name, Found { content, mode });
    }
    Ok(found)
}

fn gzip_members(mut bytes: &[u8]) -> Result<BTreeMap<String, Found>, String> {
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let mut member = flate2::bufread::GzDecoder::new(&mut bytes);
        let mut content = Vec::new();
        member.read_to_end(&mut content).map_err(|error| error.to_string())?;
        let name = member.header().and_then(|header| header.filename()).unwrap_or_default();
        found.insert(String::from_utf8_lossy(name).into_owned(), Found { content, mode: None });
    }
    Ok(found)
}

pub fn compare_entries(
    expected: &BTreeMap<String, Entry>,
    found: &BTreeMap<String, Found>,
    what: &str,
    wrong: &mut Vec<String>,
) {
    for (name, entry) in expected {
        match found.get(name) {
            Some(found) => compare_entry(entry, found, &format!("{what}: {name}"), wrong),
            None => wrong.push(format!("{what} lacks {name}; it has {:?}", found.keys())),
        }
    }
    let unexpected = found.keys().filter(|name| !expected.contains_key(*name));
    wrong.extend(unexpected.map(|name| format!("{what} has {name}, which is one too many")));
}

fn compare_entry(expected: &Entry, found: &Found, what: &str, wrong: &mut Vec<String>) {
    let content = String::from_utf8_lossy(&found.content);
    let (text, entry) = match expected {
        Entry::Text(text) => (Some(text), None),
        Entry::Full(entry) => (entry.text.as_ref().or(entry.link.as_ref()), Some(entry)),
    };
    if let Some(text) = text.filter(|text| **text != content) {
        wrong.push(format!("{what} is {content:?}, not {text:?}"));
    }
    let Some(entry) = entry else { return };
    let is_link = found.mode.is_some_and(|mode| mode & 0o170_000 == 0o120_000);
    if entry.link.is_some() != is_link {
        wrong.push(format!("{what} is {} symbolic link", if is_link { "a" } else { "no" }));
    }
    let mode = found.mode.map_or("none".into(), |mode| format!("{:o}", mode & 0o777));
    if let Some(expected) = entry.mode.as_ref().filter(|expected| **expected != mode) {
        wrong.push(format!("{what} has mode {mode}, not {expected}"));
    }
    if let Some(size) = entry.size.filter(|size| *size != found.content.len() as u64) {
        wrong.push(format!("{what} has {} bytes, not {size}", found.content.len()));
    }
}

fn requests(expected: &Request, made: &[RequestLog], wrong: &mut Vec<String>) {
    let path = Regex::new(&format!("^(?:{})$", expected.path)).unwrap_or_else(|error| panic!("{error}"));
    let meant: Vec<&RequestLog> = (made.iter())
        .filter(|request| expected.method.as_ref().is_none_or(|method| *method == request.method))
        .filter(|request| expected.status.is_none_or(|status| request.status == Some(status)))
        .filter(|request| path.is_match(&request.path))
        .collect();
    let what = format!("{} {}", expected.method.as_deref().unwrap_or("any"), expected.path);
    match expected.count {
        Some(count) if count != meant.len() => {
            wrong.push(format!("there were {} requests {what}, not {count}", meant.len()));
        }
        None if meant.is_empty() => wrong.push(format!("there was no request {what}")),
        _ => {}
    }
    let Some(credentials) = &expected.credentials else { return };
    let other = meant.iter().filter(|request| request.credentials.iter().ne(credentials.iter()));
    wrong.extend(other.map(|request| {
        format!(
            "{} {} has the credentials {:?}, not {credentials:?}",
            request.method, request.path, request.credentials
        )
    }));
}
