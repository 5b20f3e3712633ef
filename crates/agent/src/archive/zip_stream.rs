//! Zip as a stream: nothing is written twice, so an archive can be on its way while it still grows (protocol 5.3).
//!
//! Names are the bytes of the file system: the zip crate, which reads archives here, would only write UTF-8.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;

const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;

/// Sizes and sum follow the content instead of preceding it.
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;

/// What is not this small needs zip64. Deflate makes incompressible content a little larger.
const SMALL: u64 = 0xf000_0000;

/// One file, directory or link.
pub struct Head {
    /// Slash separated; that of a directory ends with a slash.
    pub name: Vec<u8>,
    /// With the kind of file, as `stat` has it.
    pub mode: u32,
    /// Unix time.
    pub modified: i64,
    pub uid: u32,
    pub gid: u32,
    pub deflated: bool,
    /// How large the content will be at most.
    pub size: u64,
}

/// What is known of a content when all of it was read.
#[derive(Clone, Copy)]
pub struct Sum {
    pub crc: u32,
    pub size: u64,
}

/// An entry whose content is being written.
struct Open {
    head: Head,
    /// Where its local header began.
    at: u64,
    compressed: u64,
}

pub struct ZipStream<W> {
    into: W,
    at: u64,
    central: Vec<u8>,
    entries: u64,
    open: Option<Open>,
}

impl<W: Write> ZipStream<W> {
    pub fn new(into: W) -> Self {
        Self { into, at: 0, central: Vec::new(), entries: 0, open: None }
    }

    /// An entry that is known whole.
    pub fn entry(&mut self, head: Head, sum: Sum, content: &[u8]) -> io::Result<()> {
        let at = self.at;
        let compressed = content.len() as u64;
        self.local_header(&head, Some((sum, compressed)))?;
        self.put(content)?;
        self.remember(&head, at, sum, compressed, 0);
        Ok(())
    }

    /// An entry whose content comes in parts, by [`Self::data`], until [`Self::end`].
    pub fn begin(&mut self, head: Head) -> io::Result<()> {
        let at = self.at;
        self.local_header(&head, None)?;
        self.open = Some(Open { head, at, compressed: 0 });
        Ok(())
    }

    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            open.compressed += bytes.len() as u64;
        }
        self.put(bytes)
    }

    pub fn end(&mut self, sum: Sum) -> io::Result<()> {
        let Some(Open { head, at, compressed }) = self.open.take() else { return Ok(()) };
        let mut descriptor = Vec::with_capacity(24);
        put32(&mut descriptor, DESCRIPTOR);
        put32(&mut descriptor, sum.crc);
        if head.size > SMALL {
            put64(&mut descriptor, compressed);
            put64(&mut descriptor, sum.size);
        } else {
            put32(&mut descriptor, low32(compressed));
            put32(&mut descriptor, low32(sum.size));
        }
        self.put(&descriptor)?;
        self.remember(&head, at, sum, compressed, FLAG_DESCRIPTOR);
        Ok(())
    }

    /// Writes the directory of all entries, without which this is no archive.
    pub fn finish(mut self) -> io::Result<()> {
        let (start, size, entries) = (self.at, self.central.len() as u64, self.entries);
        let central = std::mem::take(&mut self.central);
        self.put(&central)?;
        let mut end = Vec::with_capacity(98);
        if entries > 0xfffe || start > 0xffff_fffe || size > 0xffff_fffe {
            let record = self.at;
            put32(&mut end, END_64);
            // What follows of this record.
            put64(&mut end, 44);
            put16(&mut end, MADE_BY);
            put16(&mut end, 45);
            end.extend([0; 8]);
            for number in [entries, entries, size, start] {
                put64(&mut end, number);
            }
            put32(&mut end, END_64_LOCATOR);
            put32(&mut end, 0);
            put64(&mut end, record);
            put32(&mut end, 1);
        }
        put32(&mut end, END);
        end.extend([0; 4]);
        put16(&mut end, low16(entries));
        put16(&mut end, low16(entries));
        put32(&mut end, low32(size));
        put32(&mut end, low32(start));
        put16(&mut end, 0);
        self.put(&end)?;
        self.into.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.into.write_all(bytes)
    }

    fn local_header(&mut self, head: &Head, known: Option<(Sum, u64)>) -> io::Result<()> {
        let name_length = name_length(head)?;
        let mut extra = Vec::with_capacity(48);
        // Says that the sizes behind the content have 8 bytes.
        if known.is_none() && head.size > SMALL {
            put16(&mut extra, 1);
            put16(&mut extra, 16);
            extra.extend([0; 16]);
        }
        times_and_owner(head, &mut extra);
        let mut header = Vec::with_capacity(30 + head.name.len() + extra.len());
        put32(&mut header, LOCAL);
        put16(&mut header, if head.size > SMALL { 45 } else { 20 });
        common(head, if known.is_none() { FLAG_DESCRIPTOR } else { 0 }, &mut header);
        let (crc, compressed, size) = known.map_or((0, 0, 0), |(sum, compressed)| (sum.crc, compressed, sum.size));
        put32(&mut header, crc);
        put32(&mut header, low32(compressed));
        put32(&mut header, low32(size));
        put16(&mut header, name_length);
        put16(&mut header, length16(&extra));
        header.extend(&head.name);
        header.extend(extra);
        self.put(&header)
    }

    fn remember(&mut self, head: &Head, at: u64, sum: Sum, compressed: u64, flags: u16) {
        let mut extra = Vec::with_capacity(60);
        let too_large: Vec<u64> =
            [sum.size, compressed, at].into_iter().filter(|number| *number > 0xffff_fffe).collect();
        if !too_large.is_empty() {
            put16(&mut extra, 1);
            put16(&mut extra, 8 * too_large.len() as u16);
            for number in &too_large {
                put64(&mut extra, *number);
            }
        }
        times_and_owner(head, &mut extra);
        let central = &mut self.central;
        put32(central, CENTRAL);
        put16(central, MADE_BY);
        put16(central, if head.size > SMALL || !too_large.is_empty() { 45 } else { 20 });
        common(head, flags, central);
        put32(central, sum.crc);
        put32(central, low32(compressed));
        put32(central, low32(sum.size));
        // Its length was looked at when the local header was written.
        put16(central, head.name.len() as u16);
        put16(central, length16(&extra));
        // No comment, the first disk, no attributes of its own.
        central.extend([0; 6]);
        let msdos_directory = u32::from(head.name.ends_with(b"/")) << 4;
        put32(central, head.mode << 16 | msdos_directory);
        put32(central, low32(at));
        central.extend(&head.name);
        central.extend(extra);
        self.entries += 1;
    }
}

/// Made on Unix, by the version of the format that has zip64.
const MADE_BY: u16 = 3 << 8 | 45;

/// Flags, method and time, which both headers have.
fn common(head: &Head, flags: u16, into: &mut Vec<u8>) {
    let utf8 = if std::str::from_utf8(&head.name).is_ok() { FLAG_UTF8 } else { 0 };
    put16(into, flags | utf8);
    put16(into, if head.deflated { 8 } else { 0 });
    let (time, date) = msdos_time(head.modified);
    put16(into, time);
    put16(into, date);
}

/// Zip's own time has two-second steps and no time zone, and it has no owner.
fn times_and_owner(head: &Head, extra: &mut Vec<u8>) {
    if let Ok(modified) = i32::try_from(head.modified) {
        put16(extra, EXTENDED_TIMESTAMP);
        put16(extra, 5);
        // The modification time is present.
        extra.push(1);
        extra.extend(modified.to_le_bytes());
    }
    put16(extra, UNIX_OWNER);
    put16(extra, 11);
    // Version 1, and 4 bytes for each number.
    extra.extend([1, 4]);
    put32(extra, head.uid);
    extra.push(4);
    put32(extra, head.gid);
}

/// Ids of zip's extra fields.
const EXTENDED_TIMESTAMP: u16 = 0x5455;
pub const UNIX_OWNER: u16 = 0x7875;

fn name_length(head: &Head) -> io::Result<u16> {
    u16::try_from(head.name.len()).map_err(|_| io::Error::other("the path is too long for a zip"))
}

/// Of extra fields, which are made here and short.
fn length16(extra: &[u8]) -> u16 {
    extra.len() as u16
}

/// All ones say: look into the zip64 field.
fn low32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn low16(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn put16(into: &mut Vec<u8>, number: u16) {
    into.extend(number.to_le_bytes());
}

fn put32(into: &mut Vec<u8>, number: u32) {
    into.extend(number.to_le_bytes());
}

fn put64(into: &mut Vec<u8>, number: u64) {
    into.extend(number.to_le_bytes());
}

/// Time and date, in UTC. Years before 1980 and after 2107 do not exist there.
fn msdos_time(unix: i64) -> (u16, u16) {
    let time = Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    let part = |value: i8| u16::from(value.unsigned_abs());
    match u16::try_from(time.year()) {
        Ok(year @ 1980..=2107) => (
            part(time.hour()) << 11 | part(time.minute()) << 5 | part(time.second()) >> 1,
            (year - 1980) << 9 | part(time.month()) << 5 | part(time.day()),
        ),
        // 1 January 1980.
        _ => (0, 1 << 5 | 1),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Cursor, Read, Seek};

    use zip::ZipArchive;

    use super::*;

    fn head(name: &[u8], size: u64) -> Head {
        Head { name: name.to_vec(), mode: 0o100_640, modified: 1_234_567_891, uid: 7, gid: 8, deflated: false, size }
    }

    #[test]
    fn times_before_and_after_msdos_are_its_first_day() {
        assert_eq!(msdos_time(0), (0, 33));
        assert_eq!(msdos_time(1_234_567_891), (23 << 11 | 31 << 5 | 15, 29 << 9 | 2 << 5 | 13));
        assert_eq!(msdos_time(i64::MAX), (0, 33));
    }

    #[test]
    fn what_is_written_in_parts_or_whole_is_read_again() {
        let mut bytes = Vec::new();
        let mut zip = ZipStream::new(&mut bytes);
        let sum = Sum { crc: crc32fast::hash(b"hello"), size: 5 };
        zip.entry(head(b"whole", 5), sum, b"hello").expect("written");
        // A size that is only announced: whoever archives a growing file cannot know better.
        for announced in [5, SMALL + 1] {
            zip.begin(head(format!("parts-{announced}").as_bytes(), announced)).expect("written");
            zip.data(b"he").and_then(|()| zip.data(b"llo")).and_then(|()| zip.end(sum)).expect("written");
        }
        zip.finish().expect("written");
        let mut zip = ZipArchive::new(Cursor::new(bytes)).expect("a zip");
        assert_eq!(zip.len(), 3);
        for index in 0..3 {
            let mut entry = zip.by_index(index).expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("its content");
            assert_eq!((text.as_str(), entry.unix_mode()), ("hello", Some(0o100_640)));
        }
    }

    #[test]
    fn more_entries_than_zip_can_count_are_counted_by_zip64() {
        let mut bytes = Vec::new();
        let mut zip = ZipStream::new(&mut bytes);
        for number in 0..70_000_u32 {
            zip.entry(head(number.to_string().as_bytes(), 0), Sum { crc: 0, size: 0 }, b"").expect("written");
        }
        zip.finish().expect("written");
        assert_eq!(ZipArchive::new(Cursor::new(bytes)).expect("a zip").len(), 70_000);
    }

    /// A file with holes where zeros are written.
    struct Holes(File);

    impl Write for Holes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (first, rest) = bytes.split_first().ok_or(io::ErrorKind::WriteZero)?;
            // Compares the bytes with themselves, shifted by one.
            match *first == 0 && rest == &bytes[..rest.len()] {
                true => self.0.seek_relative(bytes.len() as i64).map(|()| bytes.len()),
                false => self.0.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_entry_of_more_than_4_gigabytes_and_what_is_behind_it_are_found() {
        let mut zip = ZipStream::new(Holes(tempfile::tempfile().expect("a file")));
        let size = (4 << 30) + (1 << 20);
        zip.begin(head(b"large", size)).expect("written");
        let zeros = vec![0; 1 << 20];
        for _ in 0..size >> 20 {
            zip.data(&zeros).expect("written");
        }
        zip.end(Sum { crc: 0, size }).expect("written");
        zip.entry(head(b"behind", 5), Sum { crc: crc32fast::hash(b"hello"), size: 5 }, b"hello").expect("written");
        let mut file = zip.into.0.try_clone().expect("the same file");
        zip.finish().expect("written");
        file.rewind().expect("a file");
        let mut zip = ZipArchive::new(file).expect("a zip");
        let large = zip.by_name("large").expect("an entry");
        assert_eq!((large.size(), large.compressed_size()), (size, size));
        drop(large);
        let mut text = String::new();
        zip.by_name("behind").expect("an entry").read_to_string(&mut text).expect("its content");
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_path_that_no_header_can_hold_is_refused() {
        let mut zip = ZipStream::new(io::sink());
        assert!(zip.entry(head(&[b'a'; 70_000], 0), Sum { crc: 0, size: 0 }, b"").is_err());
    }
}
