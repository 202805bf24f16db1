//! Frames: how a record lies in a file, so that one that was cut off is noticed.

use std::io::{self, ErrorKind, Read};

/// Length and checksum, four bytes each, before every record.
pub(crate) const HEADER: u64 = 8;

/// The longest record in bytes; a length above it is damage.
pub(crate) const MAX_RECORD: usize = 64 << 20;

/// Adds a record with its frame. A record is neither empty nor longer than [`MAX_RECORD`].
pub(crate) fn write(out: &mut Vec<u8>, record: &[u8]) {
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(record).to_le_bytes());
    out.extend_from_slice(record);
}

/// The next record, or none where the file ends or goes on with something that is no whole record.
pub(crate) fn read(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER as usize];
    if !filled(file.read_exact(&mut header))? {
        return Ok(None);
    }
    let [a, b, c, d, check @ ..] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    // A crashed machine may leave zeros, whose checksum would be right.
    if length == 0 || length > MAX_RECORD {
        return Ok(None);
    }
    // Grows with what is there: a wrong length takes no memory.
    let mut record = Vec::new();
    file.take(length as u64).read_to_end(&mut record)?;
    let whole = record.len() == length && checksum(&record) == u32::from_le_bytes(check);
    Ok(whole.then_some(record))
}

fn filled(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// CRC-32 as in IEEE 802.3.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8))
}

static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut entry, mut bit) = (index as u32, 0);
        while bit < 8 {
            entry = (entry >> 1) ^ (0xEDB8_8320 * (entry & 1));
            bit += 1;
        }
        table[index] = entry;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_well_known_one() {
        assert_eq!(checksum(b"123456789"), 0xCBF4_3926);
    }
}
