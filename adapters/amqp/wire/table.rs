//! A header table as it is on the wire.
//!
//! It is read entry by entry, in order. A nested table or array is one value, skipped by its
//! length, so no input makes the reader recurse or fail as a whole. The rest after a malformed
//! entry counts as one unreadable entry.

use std::borrow::Cow;

use super::bytes::Reader;

/// The value of an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// A long string or a byte array.
    Bytes(&'a [u8]),
    Flag(bool),
    Integer(i64),
    Real(f64),
    /// A decimal number: its digits, and how many of them follow the point.
    Decimal(u32, u8),
    /// Seconds since 1970.
    Timestamp(u64),
    Void,
    Array(Elements<'a>),
    Table,
}

impl<'a> Value<'a> {
    /// Reads a value with its type in front, with RabbitMQ's meaning of the types: `s` is a 16-bit
    /// number, `L` is signed.
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let kind = reader.u8()?;
        Some(match kind {
            b'S' | b'x' => Self::Bytes(reader.long_string()?),
            b'A' => Self::Array(Elements(Reader::new(reader.long_string()?))),
            b'F' => {
                reader.long_string()?;
                Self::Table
            }
            b't' => Self::Flag(reader.u8()? != 0),
            b'b' => Self::Integer(i8::from_be_bytes(reader.array()?).into()),
            b'B' => Self::Integer(reader.u8()?.into()),
            b's' | b'U' => Self::Integer(i16::from_be_bytes(reader.array()?).into()),
            b'u' => Self::Integer(reader.u16()?.into()),
            b'I' => Self::Integer(i32::from_be_bytes(reader.array()?).into()),
            b'i' => Self::Integer(reader.u32()?.into()),
            b'l' | b'L' => Self::Integer(i64::from_be_bytes(reader.array()?)),
            b'f' => Self::Real(f32::from_be_bytes(reader.array()?).into()),
            b'd' => Self::Real(f64::from_be_bytes(reader.array()?)),
            b'D' => {
                let scale = reader.u8()?;
                Self::Decimal(reader.u32()?, scale)
            }
            b'T' => Self::Timestamp(u64::from_be_bytes(reader.array()?)),
            b'V' => Self::Void,
            _ => return None,
        })
    }

    /// Returns the value as the bytes of a header: numbers, flags and times as text. Returns `None`
    /// for tables and arrays.
    pub(crate) fn text(self) -> Option<Cow<'a, [u8]>> {
        let text = match self {
            Self::Bytes(bytes) => return Some(Cow::Borrowed(bytes)),
            Self::Void => return Some(Cow::Borrowed(b"")),
            Self::Flag(true) => return Some(Cow::Borrowed(b"true")),
            Self::Flag(false) => return Some(Cow::Borrowed(b"false")),
            Self::Integer(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Decimal(digits, scale) => decimal(digits, scale.into()),
            Self::Timestamp(seconds) => seconds.to_string(),
            Self::Array(_) | Self::Table => return None,
        };
        Some(Cow::Owned(text.into_bytes()))
    }
}

fn decimal(digits: u32, scale: usize) -> String {
    if scale == 0 {
        return digits.to_string();
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{whole}.{fraction}")
}

/// The entries of a table: name and value, or `None` once for a malformed rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entries<'a>(Reader<'a>);

impl<'a> Entries<'a> {
    /// Creates an iterator over the entries of a table; `table` does not include its length.
    pub(crate) fn new(table: &'a [u8]) -> Self {
        Self(Reader::new(table))
    }

    /// Returns the value of the last entry of that name.
    pub(crate) fn find(self, wanted: &str) -> Option<Value<'a>> {
        self.flatten().filter(|(name, _)| *name == wanted.as_bytes()).last().map(|(_, value)| value)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<(&'a [u8], Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        next_part(&mut self.0, |reader| Some((reader.short_string()?, Value::read(reader)?)))
    }
}

/// An entry that cannot be represented.
const UNREADABLE: [u8; 6] = [0, b'F', 0, 0, 0, 0];

/// Returns the table without its largest entries, shorter by at least `excess` bytes if it is long
/// enough. One unreadable entry stands for the removed ones.
pub(crate) fn without_largest(table: &[u8], excess: usize) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut entries = Entries::new(table);
    let mut rest = table;
    while entries.next().is_some() {
        let (part, behind) = rest.split_at(rest.len() - entries.0.rest().len());
        parts.push(part);
        rest = behind;
    }
    let mut by_size: Vec<usize> = (0..parts.len()).collect();
    by_size.sort_by_key(|index| std::cmp::Reverse(parts[*index].len()));
    let mut wanted = excess + UNREADABLE.len();
    for index in by_size {
        if wanted == 0 {
            break;
        }
        wanted = wanted.saturating_sub(parts[index].len());
        parts[index] = &[];
    }
    // In front, so that no malformed entry hides it.
    [&UNREADABLE[..]].into_iter().chain(parts).flatten().copied().collect()
}

/// The elements of an array: values, or `None` once for a malformed rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elements<'a>(Reader<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Option<Value<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        next_part(&mut self.0, Value::read)
    }
}

impl PartialEq for Elements<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.rest() == other.0.rest()
    }
}

/// Reads the next part. A malformed part is the last, because the parts after it cannot be told
/// apart.
fn next_part<'a, T>(reader: &mut Reader<'a>, read: impl Fn(&mut Reader<'a>) -> Option<T>) -> Option<Option<T>> {
    if reader.is_empty() {
        return None;
    }
    let part = read(reader);
    if part.is_none() {
        *reader = Reader::new(&[]);
    }
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![name.len() as u8];
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        bytes
    }

    fn texts(table: &[u8]) -> Vec<Option<String>> {
        let read = |entry: Option<(&[u8], Value<'_>)>| {
            entry.and_then(|(_, value)| value.text()).map(|text| String::from_utf8(text.into_owned()).unwrap())
        };
        Entries::new(table).map(read).collect()
    }

    #[test]
    fn scalars_become_text() {
        let cases: &[(&[u8], &str)] = &[
            (b"S\0\0\0\x02hi", "hi"),
            (b"x\0\0\0\x02hi", "hi"),
            (b"t\x01", "true"),
            (b"t\0", "false"),
            (b"b\xff", "-1"),
            (b"B\xff", "255"),
            (b"s\xff\xfe", "-2"),
            (b"u\xff\xfe", "65534"),
            (b"I\xff\xff\xff\xff", "-1"),
            (b"i\xff\xff\xff\xff", "4294967295"),
            (b"l\xff\xff\xff\xff\xff\xff\xff\xff", "-1"),
            (b"f\x3f\xc0\0\0", "1.5"),
            (b"d\x3f\xf8\0\0\0\0\0\0", "1.5"),
            (b"D\x02\0\0\0\x05", "0.05"),
            (b"D\0\0\0\0\x05", "5"),
            (b"T\0\0\0\0\0\0\0\x2a", "42"),
            (b"V", ""),
        ];
        for (value, expected) in cases {
            assert_eq!(texts(&entry(b"n", value)), [Some((*expected).to_owned())], "{value:?}");
        }
    }

    #[test]
    fn nested_values_are_stepped_over() {
        let mut table = entry(b"deep", b"F\0\0\0\x03abc");
        table.extend(entry(b"after", b"t\x01"));
        assert_eq!(texts(&table), [None, Some("true".to_owned())]);
    }

    #[test]
    fn a_malformed_entry_ends_the_table_once() {
        for broken in [&b"\x01n?"[..], b"\x05n", b"\x01n", b"\x01nS\0\0\0\xff", b"\x01nl\0"] {
            let mut table = entry(b"first", b"t\x01");
            table.extend_from_slice(broken);
            assert_eq!(texts(&table), [Some("true".to_owned()), None], "{broken:?}");
        }
    }

    #[test]
    fn the_largest_entries_make_room() {
        let entries = [entry(b"a", b"S\0\0\0\x01a"), entry(b"bb", b"S\0\0\0\x05large"), entry(b"c", b"t\x01")];
        let table = entries.concat();
        for excess in [1, 7] {
            let less = without_largest(&table, excess);
            assert!(less.len() + excess <= table.len(), "{excess}");
            assert_eq!(texts(&less)[0], None);
        }
        assert_eq!(texts(&without_largest(&table, 6)), [None, Some("a".to_owned()), Some("true".to_owned())]);
        assert_eq!(texts(&without_largest(&table, 1000)), [None]);
        let broken = [&table[..], b"\x05?"].concat();
        assert_eq!(texts(&without_largest(&broken, 1)).len(), 4, "what cannot be read is not in the way");
    }

    #[test]
    fn any_depth_of_nesting_is_one_value() {
        const DEPTH: usize = 200_000;
        let mut value: Vec<u8> = (0..DEPTH)
            .rev()
            .flat_map(|deeper| {
                let [a, b, c, d] = (deeper as u32 * 5 + 1).to_be_bytes();
                [b'A', a, b, c, d]
            })
            .collect();
        value.push(b'V');
        let mut table = entry(b"deep", &value);
        table.extend(entry(b"after", b"t\x01"));
        assert_eq!(texts(&table), [None, Some("true".to_owned())]);
    }
}
