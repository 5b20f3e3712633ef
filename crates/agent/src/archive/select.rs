//! Which files belong to an artifact (protocol 5.2).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::FileType;
use std::io;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use super::glob::Pattern;
use crate::note::Note;

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

/// Looks for the files. Nothing outside of `project` is ever selected, and no link is followed.
pub fn select(project: &Path, wanted: &Wanted) -> Selection {
    let mut selection = Selection::default();
    let exclude = Exclude::new(project, wanted.exclude, &mut selection.notes);
    for path in wanted.paths {
        match relative(project, path) {
            Some(relative) => selection.add_path(project, path, &relative, &exclude),
            None if path.trim().is_empty() => {
                selection.notes.push(Note::Warning("No matching files. Path is empty.".into()));
            }
            None => selection.notes.push(Note::outside(path)),
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
        selection.notes.push(Note::Warning("Part of .git directory is on the list of files to archive".into()));
        selection.notes.push(Note::Warning("This may introduce unexpected problems".into()));
    }
    selection
}

impl Selection {
    fn add_path(&mut self, project: &Path, given: &str, relative: &str, exclude: &Exclude) {
        let notes = &mut self.notes;
        let mut found = match has_wildcards(relative) {
            false => below(project, relative, false, notes, |_| true),
            true => match Pattern::new(relative) {
                Ok(pattern) => {
                    let matches = |path: &Path| pattern.matches(&path.to_string_lossy());
                    below(project, fixed_part(relative), true, notes, matches)
                }
                Err(error) => {
                    self.notes.push(Note::Warning(format!("{given}: {error}")));
                    return;
                }
            },
        };
        found.retain(|path| !exclude.matches(path) && self.can_be_archived(project, path));
        if found.is_empty() {
            self.notes.push(Note::Warning(format!(
                "{given}: no matching files. Ensure that the artifact path is relative to the working directory ({})",
                project.display()
            )));
            return;
        }
        self.notes.push(Note::Info(format!("{given}: found {} matching artifact files and directories", found.len())));
        self.entries.extend(found);
    }
}

impl Selection {
    fn can_be_archived(&mut self, project: &Path, path: &Path) -> bool {
        let special = |kind: FileType| !(kind.is_file() || kind.is_dir() || kind.is_symlink());
        let special = project.join(path).symlink_metadata().is_ok_and(|found| special(found.file_type()));
        if special {
            self.notes
                .push(Note::Warning(format!("File ignored, it is a socket, a pipe or a device: {}", path.display())));
        }
        !special
    }
}

impl Note {
    fn outside(path: &str) -> Self {
        Self::Warning(format!("artifact path is not a subpath of project directory: {path}"))
    }
}

/// Every path at or below `start` that matches or lies below one that matches. A link is found, not followed, with
/// one exception that GitLab's runner makes too: the directory `start` of a pattern. What cannot be looked at is told.
fn below(
    project: &Path,
    start: &str,
    of_pattern: bool,
    notes: &mut Vec<Note>,
    matches: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // The walk is depth first, so the last match is the only one that can hold the current path.
    let mut inside: Option<PathBuf> = None;
    for entry in WalkDir::new(project.join(start)).follow_root_links(of_pattern) {
        let entry = match entry {
            Ok(entry) => entry,
            // What is not there, or not any more, does not match.
            Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => continue,
            Err(error) => {
                notes.push(Note::Warning(error.to_string()));
                continue;
            }
        };
        let Ok(path) = entry.path().strip_prefix(project) else { continue };
        // As an entry it would be the link, and what is below it would have no place in the archive.
        if of_pattern && entry.depth() == 0 && entry.path_is_symlink() {
            continue;
        }
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
                None => notes.push(Note::outside(text)),
            }
        }
        Self(patterns)
    }

    /// An entry counts for the first pattern that it matches.
    fn matches(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        let first = self.0.iter().find(|(_, pattern, _)| pattern.matches(&path));
        if let Some((_, _, count)) = first {
            count.set(count.get() + 1);
        }
        first.is_some()
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
            ("link/**", vec!["link/.hidden", "link/app.js", "link/css", "link/css/a.css"]),
            ("link/*", vec!["link/.hidden", "link/app.js", "link/css", "link/css/a.css"]),
            ("l*/*", vec![]),
            ("**/a*", vec!["dist/app.js", "dist/css/a.css"]),
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
            let [Note::Warning(why)] = &selection.notes[..] else { panic!("{path}: {:?}", selection.notes) };
            assert!(why.contains("Path is empty") || why.contains("not a subpath of project directory"), "{why}");
        }
    }

    #[test]
    fn names_of_any_encoding_are_found() {
        use std::os::unix::ffi::OsStrExt;
        let dir = project();
        let name = Path::new(std::ffi::OsStr::from_bytes(b"dist/caf\xe9"));
        fs::write(dir.path().join(name), "x").expect("a file");
        for pattern in ["dist", "dist/caf*", "dist/caf?", "**/caf[^a]"] {
            let selection = select(dir.path(), &Wanted { paths: &[pattern.to_owned()], ..Wanted::default() });
            assert!(selection.entries.contains(name), "{pattern}");
        }
    }

    #[test]
    fn what_no_archive_can_hold_is_left_out_and_told() {
        let dir = project();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).expect("a socket");
        let selection = select(dir.path(), &Wanted { paths: &["[ps]*".to_owned()], ..Wanted::default() });
        assert_eq!(selection.entries.iter().collect::<Vec<_>>(), [Path::new("src"), Path::new("src/main.rs")]);
        let text = |name: &str| Note::Warning(format!("File ignored, it is a socket, a pipe or a device: {name}"));
        assert!(selection.notes.contains(&text("pipe")) && selection.notes.contains(&text("socket")));
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_told() {
        let dir = project();
        // Even root cannot walk to a path that is too long.
        let name = "0".repeat(200);
        let (upper, lower) = (dir.path().join(&name), dir.path().join("lower"));
        let deep = |from: &Path| (0..14).fold(from.to_owned(), |path, _| path.join(&name));
        for path in [deep(&upper), deep(&lower)] {
            fs::create_dir_all(path).expect("directories");
        }
        fs::rename(&lower, deep(&upper).join("lower")).expect("a longer path");
        let selection = select(dir.path(), &Wanted { paths: &["0*".to_owned()], ..Wanted::default() });
        assert!(!selection.entries.is_empty());
        let [Note::Warning(error), Note::Info(_)] = &selection.notes[..] else { panic!("{:?}", selection.notes) };
        assert!(error.contains(dir.path().to_str().expect("UTF-8")) && error.contains("too long"), "{error}");
    }

    #[test]
    fn what_is_all_excluded_does_not_match() {
        let dir = project();
        let (paths, exclude) = (["*.md".to_owned()], ["**".to_owned(), "*.md".to_owned()]);
        let selection = select(dir.path(), &Wanted { paths: &paths, exclude: &exclude, untracked: None });
        let [Note::Warning(none), Note::Info(excluded)] = &selection.notes[..] else { panic!("{selection:?}") };
        assert!(none.starts_with("*.md: no matching files"), "{none}");
        assert_eq!(excluded, "**: excluded 1 files");
    }

    #[test]
    fn parts_of_git_itself_are_warned_about() {
        let dir = project();
        fs::create_dir(dir.path().join(".git")).expect("a directory");
        let selection = select(dir.path(), &Wanted { paths: &[".git".to_owned()], ..Wanted::default() });
        assert!(
            selection
                .notes
                .contains(&Note::Warning("Part of .git directory is on the list of files to archive".into()))
        );
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
