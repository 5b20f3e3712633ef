//! Which files belong to an artifact (protocol 5.2).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use super::glob::Pattern;

/// What an artifact asks for; its variables are expanded already.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    pub paths: &'a [String],
    pub exclude: &'a [String],
    /// What git does not know, relative to the project; `None` if it is not wanted.
    pub untracked: Option<&'a [PathBuf]>,
}

/// Files, directories and links relative to the project, sorted, and what to say about them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub entries: BTreeSet<PathBuf>,
    pub notes: Vec<Note>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    Info(String),
    Warning(String),
}

/// Looks for the files. Nothing outside of `project` is ever selected, and no link is followed.
pub fn select(project: &Path, wanted: &Wanted) -> Selection {
    let mut selection = Selection::default();
    let exclude = Exclude::new(project, wanted.exclude, &mut selection.notes);
    for path in wanted.paths {
        match relative(project, path) {
            Some(relative) => selection.add_path(project, path, &relative, &exclude),
            None if path.trim().is_empty() => selection.notes.push(Note::Warning("an artifact path is empty".into())),
            None => selection.notes.push(Note::Warning(format!("{path}: not within the project directory, left out"))),
        }
    }
    if let Some(untracked) = wanted.untracked {
        let before = selection.entries.len();
        selection.entries.extend(untracked.iter().filter(|path| !exclude.matches(path)).cloned());
        let found = selection.entries.len() - before;
        selection.notes.push(match found {
            0 => Note::Warning("untracked: no files".into()),
            _ => Note::Info(format!("untracked: found {found} files")),
        });
    }
    exclude.tell(&mut selection.notes);
    if selection.entries.iter().any(|path| path.components().any(|part| part.as_os_str() == ".git")) {
        selection.notes.push(Note::Warning("part of a .git directory is on the list of files to archive".into()));
    }
    selection
}

impl Selection {
    fn add_path(&mut self, project: &Path, given: &str, relative: &str, exclude: &Exclude) {
        let found = match has_wildcards(relative) {
            false => below(project, relative, |_| true),
            true => match Pattern::new(relative) {
                Ok(pattern) => below(project, fixed_part(relative), |path| pattern.matches(&path.to_string_lossy())),
                Err(error) => {
                    self.notes.push(Note::Warning(format!("{given}: {error}")));
                    return;
                }
            },
        };
        if found.is_empty() {
            self.notes.push(Note::Warning(format!(
                "{given}: no matching files. Ensure that the artifact path is relative to the working directory ({})",
                project.display()
            )));
            return;
        }
        let kept: Vec<_> = found.into_iter().filter(|path| !exclude.matches(path)).collect();
        self.notes.push(Note::Info(format!("{given}: found {} matching artifact files and directories", kept.len())));
        self.entries.extend(kept);
    }
}

/// Every path at or below `start` that matches or lies below one that matches.
fn below(project: &Path, start: &str, matches: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // The walk is depth first, so the last match is the only one that can hold the current path.
    let mut inside: Option<PathBuf> = None;
    for entry in WalkDir::new(project.join(start)).follow_root_links(false).into_iter().flatten() {
        let Ok(path) = entry.path().strip_prefix(project) else { continue };
        if path.as_os_str().is_empty() {
            if matches(path) && start.is_empty() {
                inside = Some(PathBuf::new());
            }
            continue;
        }
        if inside.as_ref().is_none_or(|directory| !path.starts_with(directory)) {
            if !matches(path) {
                continue;
            }
            inside = Some(path.to_owned());
        }
        found.push(path.to_owned());
    }
    found
}

/// The path from the project's directory, slash separated, without `.` and `..`; empty for the project
/// itself, `None` outside of it.
fn relative(project: &Path, path: &str) -> Option<String> {
    if path.trim().is_empty() {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    let path = Path::new(path);
    let path = if path.is_absolute() { path.strip_prefix(project).ok()? } else { path };
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(parts.join("/"))
}

fn has_wildcards(path: &str) -> bool {
    path.contains(['*', '?', '[', '{'])
}

/// The directories before the first wildcard: nothing else has to be walked.
fn fixed_part(pattern: &str) -> &str {
    let wildcard = pattern.find(['*', '?', '[', '{']).unwrap_or(pattern.len());
    pattern[..wildcard].rfind('/').map_or("", |slash| &pattern[..slash])
}

/// The patterns of `exclude`, and how often each applied.
struct Exclude(Vec<(String, Pattern, Cell<usize>)>);

impl Exclude {
    fn new(project: &Path, given: &[String], notes: &mut Vec<Note>) -> Self {
        let mut patterns = Vec::new();
        for text in given {
            match relative(project, text).map(|relative| Pattern::new(&relative)) {
                Some(Ok(pattern)) => patterns.push((text.clone(), pattern, Cell::new(0))),
                Some(Err(error)) => notes.push(Note::Warning(format!("{text}: {error}"))),
                None => notes.push(Note::Warning(format!("{text}: not within the project directory, left out"))),
            }
        }
        Self(patterns)
    }

    fn matches(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        let mut matched = false;
        for (_, _, count) in self.0.iter().filter(|(_, pattern, _)| pattern.matches(&path)) {
            count.set(count.get() + 1);
            matched = true;
        }
        matched
    }

    fn tell(&self, notes: &mut Vec<Note>) {
        for (text, _, count) in self.0.iter().filter(|(_, _, count)| count.get() > 0) {
            notes.push(Note::Info(format!("{text}: excluded {} files", count.get())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for file in ["dist/app.js", "dist/css/a.css", "dist/.hidden", "src/main.rs", "README.md", "log.txt"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).and_then(|()| fs::write(path, file)).expect("a file");
        }
        std::os::unix::fs::symlink("dist", dir.path().join("link")).expect("a link");
        dir
    }

    fn names(project: &Path, paths: &[&str], exclude: &[&str]) -> Vec<String> {
        let (paths, exclude) =
            [paths, exclude].map(|list| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).into();
        let selection = select(project, &Wanted { paths: &paths, exclude: &exclude, untracked: None });
        selection.entries.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_directory_brings_all_that_is_in_it() {
        let dir = project();
        let all = ["dist", "dist/.hidden", "dist/app.js", "dist/css", "dist/css/a.css"];
        for path in ["dist", "dist/", "./dist/.", "src/../dist", dir.path().join("dist").to_str().expect("UTF-8")] {
            assert_eq!(names(dir.path(), &[path], &[]), all, "{path}");
        }
        assert_eq!(names(dir.path(), &["."], &[]).len(), 10);
    }

    #[test]
    fn wildcards_match_as_in_gitlab() {
        let dir = project();
        for (pattern, found) in [
            ("*.md", vec!["README.md"]),
            ("**/*.css", vec!["dist/css/a.css"]),
            ("dist/*", vec!["dist/.hidden", "dist/app.js", "dist/css", "dist/css/a.css"]),
            ("{README,log}.*", vec!["README.md", "log.txt"]),
            ("dist/[ab]pp.j?", vec!["dist/app.js"]),
            ("link", vec!["link"]),
            ("link/**", vec!["link"]),
            ("link/*", vec![]),
            ("none*", vec![]),
        ] {
            assert_eq!(names(dir.path(), &[pattern], &[]), found, "{pattern}");
        }
    }

    #[test]
    fn excluding_a_directory_needs_two_stars() {
        let dir = project();
        assert_eq!(names(dir.path(), &["dist"], &["dist/css/**"]), ["dist", "dist/.hidden", "dist/app.js"]);
        assert_eq!(names(dir.path(), &["dist"], &["dist/css/"]).len(), 4);
        assert_eq!(names(dir.path(), &["dist"], &["**/*.css", "dist/.*"]), ["dist", "dist/app.js", "dist/css"]);
    }

    #[test]
    fn nothing_outside_of_the_project_is_selected() {
        let dir = project();
        for path in ["/etc/passwd", "../x", "dist/../../x", "", "  "] {
            let paths = [path.to_owned()];
            let selection = select(dir.path(), &Wanted { paths: &paths, ..Wanted::default() });
            assert!(selection.entries.is_empty(), "{path}");
            assert!(matches!(selection.notes[..], [Note::Warning(_)]), "{path}: {:?}", selection.notes);
        }
    }

    #[test]
    fn what_was_found_is_told() {
        let dir = project();
        let (paths, exclude) = (["dist".to_owned(), "none/".to_owned()], ["**/*.css".to_owned()]);
        let untracked = [PathBuf::from("log.txt"), PathBuf::from("x.css")];
        let wanted = Wanted { paths: &paths, exclude: &exclude, untracked: Some(&untracked) };
        let selection = select(dir.path(), &wanted);
        let none = format!(
            "none/: no matching files. Ensure that the artifact path is relative to the working directory ({})",
            dir.path().display()
        );
        assert_eq!(
            selection.notes,
            [
                Note::Info("dist: found 4 matching artifact files and directories".into()),
                Note::Warning(none),
                Note::Info("untracked: found 1 files".into()),
                Note::Info("**/*.css: excluded 2 files".into()),
            ]
        );
    }
}
