//! What a task's containers print: the last 64 KiB, for looking into a task that went wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const CAPACITY: usize = 64 * 1024;

/// The newest output of one task. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<VecDeque<u8>>>);

impl Log {
    pub(crate) fn append(&self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let mut kept = self.kept();
        let surplus = (kept.len() + bytes.len()).saturating_sub(CAPACITY);
        kept.drain(..surplus);
        kept.extend(bytes);
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        self.kept().iter().copied().collect()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_output_is_kept() {
        let log = Log::default();
        log.append(b"old");
        log.append(&[b'x'; CAPACITY]);
        log.append(b"new");
        let kept = log.read();
        assert_eq!(kept.len(), CAPACITY);
        assert!(kept.starts_with(b"xxx") && kept.ends_with(b"xnew"));
    }
}
