//! The end of a trace that grows too long (protocol 4.5).

const DEFAULT: u64 = 4 * 1024 * 1024;

pub(super) struct Limit {
    bytes: u64,
    /// What still fits; `None` after the notice.
    room: Option<u64>,
}

impl Limit {
    /// `bytes` of 0 is GitLab's default. A trace that has reached the limit `already` holds the notice.
    pub(super) fn new(bytes: u64, already: u64) -> Self {
        let bytes = if bytes == 0 { DEFAULT } else { bytes };
        Self { bytes, room: bytes.checked_sub(already).filter(|&room| room > 0) }
    }

    pub(super) fn reached(&self) -> bool {
        self.room.is_none()
    }

    /// Cuts what was appended to `out` after `start`. The notice comes on top of the limit.
    pub(super) fn cut(&mut self, out: &mut Vec<u8>, start: usize) {
        let added = out.len() - start;
        let room = match self.room {
            Some(room) if (added as u64) < room => {
                self.room = Some(room - added as u64);
                return;
            }
            // It fits: `added` is not smaller.
            Some(room) => room as usize,
            None => return out.truncate(start),
        };
        self.room = None;
        if room < added {
            let is_continuation = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
            let whole = (start..=start + room).rev().find(|&index| !is_continuation(out[index])).unwrap_or(start);
            out.truncate(whole);
        }
        let notice = format!(
            "\n\x1b[33;1mJob's log exceeded limit of {} bytes.\n\
             The job goes on, but no more of its output is collected.\x1b[0;m\n",
            self.bytes
        );
        out.extend_from_slice(notice.as_bytes());
    }
}
