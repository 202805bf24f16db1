//! A file of records that only grows.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use crate::frame;

/// An open file of records. What was appended is in the file after [`flush`](Self::flush).
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    written: u64,
    /// Records of the work that is under way, with their frames.
    pending: Vec<u8>,
    sync: bool,
}

impl Journal {
    /// Opens the file, made if it is not there, and shows every record with its position. What follows the last whole
    /// record was cut off by a crash: it is moved to a file beside, so that nothing hinders what is appended next.
    pub(crate) fn open(path: &Path, sync: bool, mut visit: impl FnMut(u64, &[u8])) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut written = 0;
        let mut reader = BufReader::new(&mut file);
        while let Some(record) = frame::read(&mut reader)? {
            visit(written, &record);
            written += frame::HEADER + record.len() as u64;
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

    /// Where the next record will lie.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    pub(crate) fn append(&mut self, record: &[u8]) {
        frame::write(&mut self.pending, record);
    }

    /// Writes what was appended; with `sync`, until the disk has it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.pending)?;
        if self.sync {
            self.file.sync_data()?;
        }
        self.written = self.end();
        // Keeps room for the next time, but not the room of the largest batch there ever was.
        self.pending.clear();
        self.pending.shrink_to(64 << 10);
        Ok(())
    }

    /// The written record at this position, and the position of the next; none at the end.
    pub(crate) fn read(&mut self, position: u64) -> io::Result<Option<(Vec<u8>, u64)>> {
        if position >= self.written {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(position))?;
        match frame::read(&mut self.file)? {
            Some(record) => {
                let next = position + frame::HEADER + record.len() as u64;
                Ok(Some((record, next)))
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "a record was changed by somebody else")),
        }
    }

    /// Replaces the file at `path` by one with these records only, all or nothing.
    pub(crate) fn replace(path: &Path, records: impl Iterator<Item = [u8; 17]>) -> io::Result<Self> {
        let draft = path.with_extension("draft");
        let _ = fs::remove_file(&draft);
        let mut journal = Self::open(&draft, false, |_, _| {})?;
        records.for_each(|record| journal.append(&record));
        journal.flush()?;
        journal.file.sync_all()?;
        fs::rename(&draft, path)?;
        Ok(journal)
    }
}

/// Brings the name of a new file to the disk; where folders cannot be opened, the system sees to it.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
