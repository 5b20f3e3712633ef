//! What may be written to whoever reads.

use std::io::IsTerminal;

/// Colours are for terminals, and not where `NO_COLOR` is set to something (no-color.org).
pub fn colours(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
