//! What `/proc` says about a process.

/// One process, as far as it is needed to recognise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub name: String,
    pub state: char,
    pub parent: i32,
    /// In clock ticks since the machine started: with the pid it names one process for ever.
    pub started: u64,
}

pub fn stat(pid: i32) -> Option<Stat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    // The name may hold spaces and brackets, and nothing after it does.
    let (start, rest) = line.rsplit_once(')')?;
    let (_, name) = start.split_once('(')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // The start time is field 22; the name was field 2, state and parent are 3 and 4.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { name: name.to_owned(), state, parent, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "42 (a) (b)) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 10";
        let expected = Stat { name: "a) (b)".into(), state: 'S', parent: 7, started: 987_654 };
        assert_eq!(parse(line), Some(expected));
    }

    #[test]
    fn this_process_is_found() {
        let stat = stat(std::process::id().cast_signed()).expect("our own process");
        assert_eq!(stat.parent, std::os::unix::process::parent_id().cast_signed());
        assert!(stat.started > 0);
    }
}
