//! The runner's own lines and section markers (protocol 4.9, 4.10).

const CLEAR: &str = "\x1b[0K";
const RESET: &str = "\x1b[0;m";
const BOLD_RED: &str = "\x1b[31;1m";
const BOLD_GREEN: &str = "\x1b[32;1m";
const BOLD_CYAN: &str = "\x1b[36;1m";
const YELLOW: &str = "\x1b[0;33m";

pub fn plain(text: &str) -> String {
    format!("{CLEAR}{text}{RESET}\n")
}

/// Green.
pub fn info(text: &str) -> String {
    format!("{BOLD_GREEN}{text}{RESET}\n")
}

/// `WARNING: ` is put in front.
pub fn warning(text: &str) -> String {
    format!("{YELLOW}WARNING: {text}{RESET}\n")
}

/// `ERROR: ` is put in front.
pub fn error(text: &str) -> String {
    format!("{BOLD_RED}ERROR: {text}{RESET}\n")
}

/// The title of a section, to be printed directly after [`section_start`].
pub fn title(text: &str) -> String {
    format!("{CLEAR}{BOLD_CYAN}{text}{RESET}\n")
}

/// A command of the script, as it is shown before it runs.
pub fn command(text: &str) -> String {
    format!("{BOLD_GREEN}$ {text}{RESET}\n")
}

/// Opens a section. `unix` is in seconds, `options` such as `collapsed=true` may be empty.
/// No line feed follows: the title belongs to the marker's line.
pub fn section_start(name: &str, unix: u64, options: &[&str]) -> String {
    let options = if options.is_empty() { String::new() } else { format!("[{}]", options.join(",")) };
    format!("section_start:{unix}:{name}{options}\r{CLEAR}")
}

/// Closes a section.
pub fn section_end(name: &str, unix: u64) -> String {
    format!("section_end:{unix}:{name}\r{CLEAR}")
}
