//! An append-only file of records, each with its length and checksum.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The length and the checksum before every record, four bytes each.
const FRAME: u64 = 8;
/// Maximum length of a record; a greater length is damage.
const MAX_RECORD: usize = 64 << 20;

/// An open file of records. Appended records are in the file after [`flush`](Self::flush).
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    written: u64,
    /// Records that are not written yet, with their frames.
    pending: Vec<u8>,
    sync: bool,
}

impl Journal {
    /// Opens the file, created if it is missing, and calls `visit` with every record and its
    /// position. A crash may have cut off the last record: everything behind the last whole record
    /// is moved to a second file, so that the next record is appended to a whole one.
    pub(crate) fn open(path: &Path, sync: bool, mut visit: impl FnMut(u64, &[u8])) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut written = 0;
        let mut reader = BufReader::new(&mut file);
        while let Some(record) = read(&mut reader)? {
            visit(written, &record);
            written += FRAME + record.len() as u64;
        }
        if file.metadata()?.len() > written {
            file.seek(SeekFrom::Start(written))?;
            io::copy(&mut file, &mut File::create(path.with_extension("torn"))?)?;
            file.set_len(written)?;
        }
        if sync {
            file.sync_all()?;
            sync_folder(path)?;
        }
        Ok(Self { file, written, pending: Vec::new(), sync })
    }

    /// Returns the position of the next record to append.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Appends a record, which is neither empty nor longer than [`MAX_RECORD`].
    pub(crate) fn append(&mut self, record: &[u8]) {
        self.pending.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.pending.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
        self.pending.extend_from_slice(record);
    }

    /// Writes the appended records; with `sync`, waits until they are on the disk.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.pending)?;
        if self.sync {
            self.file.sync_data()?;
        }
        self.written = self.end();
        // Keeps a buffer for the next records, but not the size of the largest batch.
        self.pending.clear();
        self.pending.shrink_to(64 << 10);
        Ok(())
    }

    /// Reads the record at this position, and returns it with the position of the next; `None` at
    /// the end of the written records.
    pub(crate) fn read(&mut self, position: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        if position >= self.written {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(position))?;
        match read(&mut self.file)? {
            Some(record) => {
                let next = position + FRAME + record.len() as u64;
                Ok(Some((record, next)))
            }
            None => Err(io::Error::new(ErrorKind::InvalidData, "another program changed a record")),
        }
    }
}

/// Reads the next record; `None` at the end of the file, or if no whole record follows.
fn read(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut frame = [0; FRAME as usize];
    match file.read_exact(&mut frame) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [a, b, c, d, check @ ..] = frame;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    // A crash of the machine may leave zeros, and the checksum of an empty record is zero.
    if length == 0 || length > MAX_RECORD {
        return Ok(None);
    }
    // Grows with the bytes that are there, so that a wrong length takes no memory.
    let mut record = Vec::new();
    file.take(length as u64).read_to_end(&mut record)?;
    let is_whole = record.len() == length && crc32fast::hash(&record) == u32::from_le_bytes(check);
    Ok(is_whole.then_some(record))
}

/// Brings the name of a new file to the disk. Systems without folders that can be opened do it
/// themselves.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
