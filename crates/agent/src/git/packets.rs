//! The lines of Git's protocol: four hexadecimal digits with the length, and that many bytes.

use super::GitError;
use gitlab::GitAnswer;

#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Data(&'a [u8]),
    /// The end of an answer.
    Flush,
    /// The end of a section.
    Delimiter,
}

/// The packets of one answer.
pub struct Packets {
    answer: GitAnswer,
    buffer: Vec<u8>,
    /// What of the buffer has been read.
    read: usize,
}

impl Packets {
    pub fn of(answer: GitAnswer) -> Self {
        Self { answer, buffer: Vec::new(), read: 0 }
    }

    pub async fn next(&mut self) -> Result<Packet<'_>, GitError> {
        let head = self.take(4).await?;
        let length = match length_of(head)? {
            0 => return Ok(Packet::Flush),
            1 => return Ok(Packet::Delimiter),
            length => length,
        };
        match self.take(length - 4).await? {
            [b'E', b'R', b'R', b' ', message @ ..] => Err(GitError::Refused(text(message))),
            data => Ok(Packet::Data(data)),
        }
    }

    /// The next packet as a line without its end; `None` at the end of the section or of the answer.
    pub async fn line(&mut self) -> Result<Option<&str>, GitError> {
        match self.next().await? {
            Packet::Data(data) => {
                let line = std::str::from_utf8(data).map_err(|_| protocol("a line is not UTF-8"))?;
                Ok(Some(line.trim_end_matches('\n')))
            }
            Packet::Flush | Packet::Delimiter => Ok(None),
        }
    }

    async fn take(&mut self, length: usize) -> Result<&[u8], GitError> {
        if self.buffer.len() - self.read < length {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        while self.buffer.len() < self.read + length {
            match self.answer.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(chunk.as_ref()),
                None => return Err(protocol("the answer ends in the middle")),
            }
        }
        let start = self.read;
        self.read += length;
        Ok(&self.buffer[start..self.read])
    }
}

/// 0 and 1 are marks; every other length counts its own four digits.
fn length_of(head: &[u8]) -> Result<usize, GitError> {
    let digits = std::str::from_utf8(head).ok().filter(|head| head.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()) {
        Some(length @ (0 | 1 | 4..)) => Ok(length),
        _ => Err(protocol(&format!("{:?} is not the length of a line", text(head)))),
    }
}

pub fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}\n", text.len() + 5).into_bytes()
}

pub const FLUSH: &[u8] = b"0000";
pub const DELIMITER: &[u8] = b"0001";

pub fn protocol(what: &str) -> GitError {
    GitError::Protocol(what.to_owned())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_its_length() {
        assert_eq!(line("done"), b"0009done\n");
        assert_eq!(length_of(b"0009").expect("a length"), 9);
        assert_eq!((length_of(FLUSH).expect("a mark"), length_of(DELIMITER).expect("a mark")), (0, 1));
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for head in ["0003", "0002", "<!DO", "+123", "\u{e9}12"] {
            assert!(matches!(length_of(head.as_bytes()), Err(GitError::Protocol(_))), "{head}");
        }
    }
}
