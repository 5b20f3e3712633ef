//! From files to one mapping: `include:local`, then `extends`, then `!reference`, in GitLab's order.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::keyword::{check, did_you_mean};
use super::mistakes::{At, Mistakes};
use super::yaml::{Entry, Map, Node, Value, parse};

/// GitLab's own bounds.
const MAX_FILES: usize = 150;
const MAX_EXTENDS: usize = 11;
const MAX_REFERENCES: usize = 10;
/// How many values references may copy; see the aliases of `yaml`.
const MAX_COPIES: usize = 100_000;

/// The whole configuration: each key of the top level once.
pub(super) struct Config {
    pub root: Map,
    /// False if a file is missing, so that what jobs ask of each other cannot be judged.
    pub whole: bool,
}

/// `None` if the first file cannot be read.
pub(super) fn read(root: &Path, file: &Path, mistakes: &mut Mistakes) -> Option<Config> {
    let index = mistakes.begin(file.to_owned());
    let at = At { file: index, line: 1 };
    let path = root.join(file);
    let mut files = Files { root, count: 1, whole: true, mistakes };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            files.mistakes.add(at, format!("this file cannot be read: {error}"));
            return None;
        }
    };
    let map = files.file(&bytes, index, &mut vec![real_path(&path)])?;
    let whole = files.whole;
    let root = extend(map, whole, mistakes);
    let root = refer(&root, mistakes);
    Some(Config { root, whole })
}

struct Files<'a> {
    root: &'a Path,
    count: usize,
    whole: bool,
    mistakes: &'a mut Mistakes,
}

impl Files<'_> {
    /// One file with all that it includes; its own keys win over theirs. `open` are the files that led here.
    fn file(&mut self, bytes: &[u8], index: u16, open: &mut Vec<PathBuf>) -> Option<Map> {
        let at = At { file: index, line: 1 };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let lines = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                self.mistakes.add(At { line: lines as u32 + 1, ..at }, "this line is not UTF-8");
                return None;
            }
        };
        let node = parse(text, index, self.mistakes)?;
        let mut own = match node.value {
            Value::Map(map) => map,
            Value::Null => {
                self.mistakes.add(at, "this file is empty");
                return None;
            }
            _ => {
                let message = format!("a pipeline is a mapping of keywords and jobs, not {}", node.describe());
                self.mistakes.add(node.at, message);
                return None;
            }
        };
        let mut joined = Map::default();
        for (path, at) in own.remove("include").map(|node| self.locals(&node)).unwrap_or_default() {
            match self.include(&path, at, open) {
                Some(map) => merge(&mut joined, map),
                None => self.whole = false,
            }
        }
        merge(&mut joined, own);
        Some(joined)
    }

    /// The paths of an `include`.
    fn locals(&mut self, node: &Node) -> Vec<(String, At)> {
        const ELSEWHERE: &[&str] = &[
            "artifact",
            "cache",
            "component",
            "file",
            "inputs",
            "integrity",
            "job",
            "project",
            "ref",
            "remote",
            "rules",
            "template",
        ];
        match &node.value {
            Value::Null | Value::Reference(_) => Vec::new(),
            Value::Text(path) => vec![(path.clone(), node.at)],
            Value::List(items) => items.iter().flat_map(|item| self.locals(item)).collect(),
            Value::Map(map) => {
                check(map, "`include`", &["local"], ELSEWHERE, self.mistakes);
                match map.get("local") {
                    Some(Node { at, value: Value::Text(path) }) => vec![(path.clone(), *at)],
                    Some(other) => self.not_a_path(other),
                    None => {
                        self.whole = false;
                        Vec::new()
                    }
                }
            }
            _ => self.not_a_path(node),
        }
    }

    fn not_a_path(&mut self, node: &Node) -> Vec<(String, At)> {
        self.whole = false;
        self.mistakes.add(node.at, format!("`include` wants a path or a list of paths, not {}", node.describe()));
        Vec::new()
    }

    fn include(&mut self, path: &str, at: At, open: &mut Vec<PathBuf>) -> Option<Map> {
        let refuse = |this: &mut Self, message: String| -> Option<Map> {
            this.mistakes.add(at, message);
            None
        };
        if path.contains("://") {
            return refuse(self, format!("only files of this repository can be included, not {path}"));
        }
        if path.contains('*') {
            return refuse(self, format!("`{path}`: patterns are not supported in `include`; name each file"));
        }
        if !path.ends_with(".yml") && !path.ends_with(".yaml") {
            return refuse(self, format!("`{path}`: an included file must end in .yml or .yaml"));
        }
        // GitLab takes every path from the root of the repository, with or without a slash.
        let Some(relative) = inside(path) else {
            return refuse(self, format!("`{path}` is outside of the repository"));
        };
        let real = match self.root.join(&relative).canonicalize() {
            Ok(real) if real.is_file() => real,
            Ok(_) => return refuse(self, format!("`{}` is not a file", relative.display())),
            Err(_) => return refuse(self, format!("there is no file `{}` in the repository", relative.display())),
        };
        if !real.starts_with(real_path(self.root)) {
            return refuse(self, format!("`{path}` is a link to a file outside of the repository"));
        }
        if open.contains(&real) {
            return refuse(self, format!("`{}` includes itself by this", relative.display()));
        }
        self.count += 1;
        if self.count > MAX_FILES {
            return refuse(self, format!("more than {MAX_FILES} files are included"));
        }
        let bytes = match std::fs::read(&real) {
            Ok(bytes) => bytes,
            Err(error) => return refuse(self, format!("`{}` cannot be read: {error}", relative.display())),
        };
        let index = self.mistakes.begin(relative);
        open.push(real);
        let map = self.file(&bytes, index, open);
        open.pop();
        map
    }
}

fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The path as it is from the root; `None` if it leaves the root.
fn inside(path: &str) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in Path::new(path.trim_start_matches('/')).components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !inside.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

/// Mappings are joined key by key at every level; anything else of `over` takes the place of what was there.
fn merge(base: &mut Map, over: Map) {
    for entry in over.0 {
        match base.0.iter_mut().find(|present| present.key == entry.key) {
            Some(Entry { at, value: Node { value: Value::Map(below), .. }, .. })
                if matches!(entry.value.value, Value::Map(_)) =>
            {
                *at = entry.at;
                if let Value::Map(above) = entry.value.value {
                    merge(below, above);
                }
            }
            _ => base.insert(entry),
        }
    }
}

/// Gives every job what it `extends`. The keyword stays only in jobs for which that failed.
fn extend(root: Map, whole: bool, mistakes: &mut Mistakes) -> Map {
    let mut extends = Extends { root: &root, whole, done: HashMap::new(), mistakes };
    let mut extended = Map::default();
    for entry in &root.0 {
        let value = match extends.resolve(&entry.key, &mut Vec::new()) {
            Some((_, map)) => Node { at: entry.value.at, value: Value::Map(map) },
            None => entry.value.clone(),
        };
        extended.0.push(Entry { key: entry.key.clone(), at: entry.at, value });
    }
    extended
}

struct Extends<'a> {
    root: &'a Map,
    whole: bool,
    /// Each with the number of levels that it stands on.
    done: HashMap<String, (usize, Map)>,
    mistakes: &'a mut Mistakes,
}

impl Extends<'_> {
    /// `None` if there is no such mapping. `path` are the names that led here.
    fn resolve(&mut self, name: &str, path: &mut Vec<String>) -> Option<(usize, Map)> {
        if let Some(done) = self.done.get(name) {
            return Some(done.clone());
        }
        let root = self.root;
        let Value::Map(own) = &root.entry(name)?.value.value else { return None };
        let mut own = own.clone();
        let Some(extends) = own.remove("extends") else { return Some((0, own)) };
        path.push(name.to_owned());
        let (mut levels, mut joined) = (0, Map::default());
        let mut failed = false;
        for (base, at) in self.bases(&extends) {
            match self.base(&base, at, path) {
                Some((below, part)) => {
                    levels = levels.max(below + 1);
                    merge(&mut joined, part);
                }
                None => failed = true,
            }
        }
        path.pop();
        merge(&mut joined, own);
        if failed {
            joined.insert(Entry { key: "extends".into(), at: extends.at, value: extends });
        }
        self.done.insert(name.to_owned(), (levels, joined.clone()));
        Some((levels, joined))
    }

    fn base(&mut self, base: &str, at: At, path: &mut Vec<String>) -> Option<(usize, Map)> {
        if path.iter().any(|name| name == base) {
            self.mistakes.add(at, format!("`{base}` extends itself: {} → {base}", path.join(" → ")));
            return None;
        }
        // The path is bounded too: it is a recursion.
        let found =
            if path.len() < MAX_EXTENDS { self.resolve(base, path) } else { Some((MAX_EXTENDS, Map::default())) };
        match found {
            Some((levels, _)) if levels >= MAX_EXTENDS => {
                self.mistakes.add(at, format!("`extends` goes more than {MAX_EXTENDS} levels deep"));
                None
            }
            None if self.whole => {
                let hint = did_you_mean(base, self.root.0.iter().map(|entry| entry.key.as_str()));
                self.mistakes.add(at, format!("there is no job `{base}` to extend{hint}"));
                None
            }
            found => found,
        }
    }

    fn bases(&mut self, extends: &Node) -> Vec<(String, At)> {
        let items = match &extends.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(extends),
        };
        let mut bases = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(name) => bases.push((name.clone(), item.at)),
                _ => self.mistakes.add(item.at, format!("`extends` wants names of jobs, not {}", item.describe())),
            }
        }
        bases
    }
}

/// Puts in place what each `!reference` names. One that failed stays where it is.
fn refer(root: &Map, mistakes: &mut Mistakes) -> Map {
    let mut references = References { root, copies_left: MAX_COPIES, mistakes };
    references.map(root, &mut Vec::new())
}

struct References<'a> {
    root: &'a Map,
    copies_left: usize,
    mistakes: &'a mut Mistakes,
}

impl<'a> References<'a> {
    fn map(&mut self, map: &'a Map, path: &mut Vec<&'a [String]>) -> Map {
        let entry =
            |entry: &'a Entry| Entry { key: entry.key.clone(), at: entry.at, value: self.node(&entry.value, path) };
        Map(map.0.iter().map(entry).collect())
    }

    /// `path` are the references that led here.
    fn node(&mut self, node: &'a Node, path: &mut Vec<&'a [String]>) -> Node {
        if !path.is_empty() {
            self.copies_left = self.copies_left.saturating_sub(1);
        }
        let value = match &node.value {
            Value::List(items) => Value::List(items.iter().map(|item| self.node(item, path)).collect()),
            Value::Map(map) => Value::Map(self.map(map, path)),
            Value::Reference(keys) if !keys.is_empty() => return self.reference(node, keys, path),
            other => other.clone(),
        };
        Node { at: node.at, value }
    }

    fn reference(&mut self, node: &'a Node, keys: &'a [String], path: &mut Vec<&'a [String]>) -> Node {
        let shown = format!("!reference [{}]", keys.join(", "));
        let wrong = if path.contains(&keys) {
            Some(format!("{shown} leads back to itself"))
        } else if path.len() >= MAX_REFERENCES {
            Some(format!("references go more than {MAX_REFERENCES} levels deep"))
        } else if self.copies_left == 0 {
            Some(format!("the references up to here repeat more than {MAX_COPIES} values"))
        } else {
            None
        };
        if let Some(message) = wrong {
            self.mistakes.add(node.at, message);
            return node.clone();
        }
        let Some(target) = self.find(keys) else {
            self.mistakes.add(node.at, format!("{shown} names nothing that is there"));
            return node.clone();
        };
        path.push(keys);
        let found = self.node(target, path);
        path.pop();
        found
    }

    fn find(&self, keys: &[String]) -> Option<&'a Node> {
        let (first, rest) = keys.split_first()?;
        let mut node = &self.root.entry(first)?.value;
        for key in rest {
            let Value::Map(map) = &node.value else { return None };
            node = &map.entry(key)?.value;
        }
        Some(node)
    }
}
