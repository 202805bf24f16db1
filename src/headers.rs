//! Message headers: an ordered multimap from names to byte values.

use std::fmt;

const LENGTH: usize = size_of::<usize>();

/// The headers of one message: ordered, with several values per name allowed. Values are bytes.
///
/// Names are compared without regard to ASCII case, because brokers, servers and other languages
/// change it. They are stored and sent as given. All headers of a message share one buffer, so a
/// set of any size costs one allocation, and an empty set none.
///
/// ```
/// use traced_broker::Headers;
///
/// let mut headers = Headers::new();
/// headers.append("Tenant", "acme");
/// headers.append("tenant", "umbrella");
/// assert_eq!(headers.get_str("TENANT"), Some("acme"));
/// assert_eq!(headers.get_all("tenant").count(), 2);
///
/// headers.insert("tenant", "initech");
/// assert_eq!(headers.iter().collect::<Vec<_>>(), [("tenant", &b"initech"[..])]);
/// ```
#[derive(Clone, Default)]
pub struct Headers {
    /// The records, one after the other: name length, value length, name, value.
    records: Vec<u8>,
    count: usize,
}

/// Returns `true` if the name of a header begins with these ASCII letters, in any case.
pub(crate) fn starts_with(name: &str, lead: &str) -> bool {
    name.get(..lead.len()).is_some_and(|start| start.eq_ignore_ascii_case(lead))
}

impl Headers {
    /// Creates an empty set without allocating.
    pub const fn new() -> Self {
        Self { records: Vec::new(), count: 0 }
    }

    /// Creates an empty set with room for `headers` headers whose names and values take `bytes`
    /// bytes together.
    ///
    /// ```
    /// use traced_broker::Headers;
    ///
    /// let mut headers = Headers::with_capacity(2, 64); // one allocation for both
    /// headers.extend([("tenant", "acme"), ("region", "eu")]);
    /// assert_eq!((headers.len(), headers.byte_len()), (2, 18));
    /// ```
    pub fn with_capacity(headers: usize, bytes: usize) -> Self {
        let room = headers.saturating_mul(2 * LENGTH).saturating_add(bytes);
        Self { records: Vec::with_capacity(room), count: 0 }
    }

    /// Returns the number of headers; several values of one name count separately.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns `true` if there are no headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a header after the others, even if the name is already present.
    pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.records.reserve(2 * LENGTH + name.len() + value.len());
        self.records.extend_from_slice(&name.len().to_ne_bytes());
        self.records.extend_from_slice(&value.len().to_ne_bytes());
        self.records.extend_from_slice(name.as_bytes());
        self.records.extend_from_slice(value);
        self.count += 1;
    }

    /// Sets a header: removes every header of that name, then adds this one at the end.
    pub fn insert(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes every header of that name and returns their number.
    ///
    /// ```
    /// use traced_broker::Headers;
    ///
    /// let mut headers: Headers = [("Tenant", "acme"), ("tenant", "beta")].into_iter().collect();
    /// assert_eq!(headers.remove("TENANT"), 2);
    /// assert_eq!(headers.remove("tenant"), 0);
    /// assert!(headers.is_empty());
    /// ```
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.count;
        // One pass, however many headers a foreign producer wrote: kept records move to the front.
        let (mut at, mut kept) = (0, 0);
        while let Some(record) = Record::read(&self.records, at) {
            let (named, end) = (record.is_named(name), record.end);
            if named {
                self.count -= 1;
            } else {
                if kept < at {
                    self.records.copy_within(at..end, kept);
                }
                kept += end - at;
            }
            at = end;
        }
        self.records.truncate(kept);
        before - self.count
    }

    /// Keeps the headers whose name and value satisfy the condition.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&str, &[u8]) -> bool) {
        let mut kept = Self::with_capacity(self.len(), self.byte_len());
        kept.extend(self.iter().filter(|(name, value)| is_kept(name, value)));
        *self = kept;
    }

    /// Returns the first value of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.records().find(|record| record.is_named(name)).map(|record| record.value)
    }

    /// Returns the first value of that name if it is UTF-8 text.
    ///
    /// ```
    /// use traced_broker::Headers;
    ///
    /// let mut headers = Headers::new();
    /// headers.append("tenant", "acme");
    /// headers.append("digest", [0xff, 0xd8]);
    /// assert_eq!(headers.get_str("tenant"), Some("acme"));
    /// assert_eq!(headers.get_str("digest"), None); // not UTF-8
    /// assert_eq!(headers.get("digest"), Some(&[0xff, 0xd8][..]));
    /// ```
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Returns every value of that name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.records().filter(move |record| record.is_named(name)).map(|record| record.value)
    }

    /// Returns the first value of each name, and whether it is the only one, in one pass.
    pub(crate) fn first_of<const N: usize>(&self, names: [&str; N]) -> [Option<First<'_>>; N] {
        let mut found = [const { None }; N];
        for record in self.records() {
            let Some(at) = names.iter().position(|name| record.is_named(name)) else { continue };
            match &mut found[at] {
                None => found[at] = Some(First { value: record.value, is_only: true }),
                Some(first) => first.is_only = false,
            }
        }
        found
    }

    /// Returns `true` if there is a header of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns all headers in order, with names as they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // Names were added as `&str`, so the check cannot fail; safe code has to repeat it.
        self.records().map(|record| (std::str::from_utf8(record.name).unwrap_or_default(), record.value))
    }

    /// Returns the total length of all names and values in bytes, to compare with a broker's limit.
    pub fn byte_len(&self) -> usize {
        self.records.len() - self.count * 2 * LENGTH
    }

    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let record = Record::read(&self.records, at)?;
            at = record.end;
            Some(record)
        })
    }
}

/// The first value of a header name.
pub(crate) struct First<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) is_only: bool,
}

struct Record<'a> {
    name: &'a [u8],
    value: &'a [u8],
    end: usize,
}

impl<'a> Record<'a> {
    fn read(records: &'a [u8], at: usize) -> Option<Self> {
        let (name_len, rest) = split_length(records.get(at..)?)?;
        let (value_len, rest) = split_length(rest)?;
        let (name, rest) = rest.split_at_checked(name_len)?;
        let value = rest.get(..value_len)?;
        Some(Self { name, value, end: at + 2 * LENGTH + name_len + value_len })
    }

    fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    Some((usize::from_ne_bytes(*length), rest))
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.records == other.records
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    /// Prints names and the sizes of values, because values may be confidential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, format_args!("{} bytes", value.len()).to_string())))
            .finish()
    }
}

impl<'a, V: AsRef<[u8]>> FromIterator<(&'a str, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        headers.extend(pairs);
        headers
    }
}

impl<'a, V: AsRef<[u8]>> Extend<(&'a str, V)> for Headers {
    fn extend<I: IntoIterator<Item = (&'a str, V)>>(&mut self, pairs: I) {
        for (name, value) in pairs {
            self.append(name, value);
        }
    }
}
