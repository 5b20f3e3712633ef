//! Makes a stream valid UTF-8, also when a character is cut by two writes (protocol 4.5).

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Keeps the beginning of a character until its end has come.
#[derive(Default)]
pub(super) struct Utf8 {
    held: Vec<u8>,
    out: Vec<u8>,
}

impl Utf8 {
    /// Valid text passes uncopied. `last` says that nothing follows.
    pub(super) fn pass<'a>(&'a mut self, bytes: &'a [u8], last: bool) -> &'a [u8] {
        if self.held.is_empty() && std::str::from_utf8(bytes).is_ok() {
            return bytes;
        }
        self.held.extend_from_slice(bytes);
        self.out.clear();
        let mut rest = self.held.as_slice();
        while let Err(error) = std::str::from_utf8(rest) {
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.out.extend_from_slice(valid);
            rest = after;
            match error.error_len() {
                Some(length) => rest = &rest[length..],
                None if last => rest = &[],
                None => break,
            }
            self.out.extend_from_slice(REPLACEMENT);
        }
        // Either valid to its end, or the beginning of one character.
        let cut = if std::str::from_utf8(rest).is_ok() { 0 } else { rest.len() };
        self.out.extend_from_slice(&rest[..rest.len() - cut]);
        self.held.drain(..self.held.len() - cut);
        &self.out
    }
}
