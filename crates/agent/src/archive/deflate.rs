//! Compression on all cores: a content is cut into blocks that are deflated beside each other and then form one
//! stream again. Measured, it is what makes packing as fast as reading.

use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Compression, FlushCompress, Status};

/// Small enough that two for each core are not felt, large enough that cutting costs nothing.
pub const BLOCK: usize = 256 * 1024;

/// How far deflate looks back: what stands before a block helps to compress it.
const WINDOW: usize = 32 * 1024;

/// A block and where it goes when it is deflated.
pub struct Block {
    before: Vec<u8>,
    content: Vec<u8>,
    last: bool,
    into: Vec<u8>,
    done: SyncSender<Deflated>,
}

/// What came of a block, and its content, which nobody needs any more.
pub struct Deflated {
    pub bytes: Vec<u8>,
    content: Vec<u8>,
}

impl Deflated {
    pub fn stored(bytes: Vec<u8>) -> Self {
        Self { bytes, content: Vec::new() }
    }
}

/// Cuts contents into blocks and gives them to the workers.
pub struct Blocks {
    queue: Sender<Block>,
    before: Vec<u8>,
    /// Memory that is used again: to get new pages for each block takes as long as to deflate it.
    spare: Vec<Vec<u8>>,
}

impl Blocks {
    pub fn new(queue: Sender<Block>) -> Self {
        Self { queue, before: Vec::new(), spare: Vec::new() }
    }

    /// A buffer with something in it.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// What was written. Small buffers come fast enough from the allocator.
    pub fn give_back(&mut self, deflated: Deflated) {
        let large = |buffer: &Vec<u8>| buffer.capacity() >= BLOCK / 4;
        self.spare.extend([deflated.bytes, deflated.content].into_iter().filter(large));
    }

    /// The next block of a content; `last` ends it. What comes of it is received when a worker had its turn.
    pub fn add(&mut self, content: Vec<u8>, last: bool) -> Receiver<Deflated> {
        let window = content.len().saturating_sub(WINDOW);
        let next = if last { Vec::new() } else { content[window..].to_vec() };
        let before = std::mem::replace(&mut self.before, next);
        let (done, receiver) = sync_channel(1);
        let into = self.buffer();
        // Without workers nothing would ever come, and the receiver says so.
        let _ = self.queue.send(Block { before, content, last, into, done });
        receiver
    }
}

/// A worker: deflates what comes until nobody can send any more.
pub fn work(queue: &Mutex<Receiver<Block>>, level: u32) {
    // Its tables are large and are made once, not for each small file.
    let mut deflate = Compress::new(Compression::new(level), false);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut block) = next else { return };
        let mut bytes = std::mem::take(&mut block.into);
        compress(&mut deflate, &block, &mut bytes);
        // Nobody wants it any more if the archive was given up.
        let _ = block.done.send(Deflated { bytes, content: block.content });
    }
}

fn compress(deflate: &mut Compress, block: &Block, out: &mut Vec<u8>) {
    deflate.reset();
    if !block.before.is_empty() {
        deflate.set_dictionary(&block.before).expect("a raw stream takes one between any two blocks");
    }
    out.clear();
    let flush = if block.last { FlushCompress::Finish } else { FlushCompress::Sync };
    // Incompressible content grows by a few bytes.
    out.reserve(block.content.len() + block.content.len() / 512 + 64);
    let mut rest = &block.content[..];
    loop {
        let before = deflate.total_in();
        let status = deflate.compress_vec(rest, out, flush).expect("deflate takes any content");
        rest = &rest[(deflate.total_in() - before) as usize..];
        // Room that is left over says that nothing is held back.
        let done = if block.last { status == Status::StreamEnd } else { rest.is_empty() && out.len() < out.capacity() };
        if done {
            return;
        }
        out.reserve(BLOCK / 8);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::channel;

    use flate2::read::DeflateDecoder;
    use proptest::prelude::*;

    use super::*;

    fn together(content: &[u8], block: usize, level: u32) -> Vec<u8> {
        let (sender, receiver) = channel();
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            let mut blocks = Blocks::new(sender);
            for _ in 0..2 {
                scope.spawn(|| work(&receiver, level));
            }
            let mut parts: Vec<_> = content.chunks(block).map(|part| blocks.add(part.to_vec(), false)).collect();
            parts.push(blocks.add(Vec::new(), true));
            drop(blocks);
            parts.into_iter().flat_map(|part| part.recv().expect("a worker").bytes).collect()
        })
    }

    fn inflated(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        DeflateDecoder::new(bytes).read_to_end(&mut out).expect("deflate");
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn blocks_form_one_stream(content in proptest::collection::vec(0_u8..8, 0..200_000), block in 1000_usize..90_000, level in 1_u32..10) {
            prop_assert_eq!(inflated(&together(&content, block, level)), content);
        }

        #[test]
        fn incompressible_blocks_too(content in proptest::collection::vec(any::<u8>(), 0..100_000)) {
            prop_assert_eq!(inflated(&together(&content, 40_000, 5)), content);
        }
    }

    #[test]
    fn cutting_costs_hardly_anything() {
        let text: String =
            (0..60_000).map(|number: u32| format!("{:x} of {number}\n", number.wrapping_mul(2_654_435_761))).collect();
        let (cut, whole) = (together(text.as_bytes(), BLOCK, 5).len(), together(text.as_bytes(), text.len(), 5).len());
        assert!(cut * 100 < whole * 101, "{cut} instead of {whole}");
    }
}
