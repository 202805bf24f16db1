//! Reads the server's answers in version 2 of Redis's protocol, which has text, numbers, lists and
//! refusals.

use ::redis::{ErrorKind, RedisError, RedisResult, Value};

/// Maximum depth of lists within lists. The answers of streams have four levels.
const DEEPEST: usize = 16;

/// Maximum length of an answer, in bytes: it has room for the largest field that Redis takes.
pub(crate) const LONGEST: usize = 1024 * 1024 * 1024;

/// Maximum length of the line at the start of a value, which is a number, a short text or a
/// refusal.
const LONGEST_LINE: usize = 64 * 1024;

/// The progress through an answer that is arriving, so that complete values are not examined again.
#[derive(Debug)]
pub(crate) struct Outline {
    /// The end of the complete values.
    at: usize,
    /// The number of values still to come.
    missing: usize,
    /// The length of the part of the next value's line that has no end of a line in it.
    searched: usize,
    /// The length of input needed for the next value, as far as it is known.
    wanted: usize,
}

impl Outline {
    pub(crate) fn new() -> Self {
        Self { at: 0, missing: 1, searched: 0, wanted: 0 }
    }

    /// Returns the length of the answer at the start of `input`, once it is complete.
    pub(crate) fn complete(&mut self, input: &[u8]) -> RedisResult<Option<usize>> {
        while self.missing > 0 {
            if !self.find_line(&input[self.at..])? {
                return Ok(None);
            }
            let Some((head, rest)) = head(&input[self.at..])? else { return Ok(None) };
            let mut end = input.len() - rest.len();
            let mut more = 0;
            match head {
                Head::Text(Some(length)) => {
                    end = end.checked_add(length).and_then(|end| end.checked_add(2)).ok_or_else(unreadable)?;
                    if end > LONGEST {
                        return Err(too_long());
                    }
                    if end > input.len() {
                        self.wanted = end;
                        return Ok(None);
                    }
                }
                Head::List(Some(count)) => more = count,
                _ => {}
            }
            if end > LONGEST {
                return Err(too_long());
            }
            self.at = end;
            self.searched = 0;
            self.missing = (self.missing - 1).checked_add(more).ok_or_else(unreadable)?;
        }
        Ok(Some(self.at))
    }

    /// Returns `true` if the line at the start of the next value is complete. No byte is searched
    /// twice, however small the pieces are in which the line comes.
    fn find_line(&mut self, value: &[u8]) -> RedisResult<bool> {
        let end = value[self.searched..].iter().position(|byte| *byte == b'\n');
        let length = end.map_or(value.len(), |end| self.searched + end);
        if length > LONGEST_LINE {
            return Err(unreadable());
        }
        self.searched = length;
        Ok(end.is_some())
    }

    /// Returns the minimum number of bytes that are missing.
    pub(crate) fn lacking(&self, input: &[u8]) -> usize {
        self.wanted.saturating_sub(input.len())
    }
}

/// Reads a complete answer.
pub(crate) fn read(mut input: &[u8]) -> RedisResult<Value> {
    value(&mut input, DEEPEST)
}

fn value(input: &mut &[u8], depth: usize) -> RedisResult<Value> {
    let whole = *input;
    let (head, rest) = head(whole)?.ok_or_else(unreadable)?;
    *input = rest;
    Ok(match head {
        Head::Line(line) if line == b"OK" => Value::Okay,
        Head::Line(line) => Value::SimpleString(String::from_utf8_lossy(line).into_owned()),
        // The client parses refusals.
        Head::Refusal => ::redis::parse_redis_value(&whole[..whole.len() - rest.len()])?,
        Head::Number(number) => Value::Int(number),
        Head::Text(None) | Head::List(None) => Value::Nil,
        Head::Text(Some(length)) => {
            let (text, rest) = rest.split_at_checked(length).ok_or_else(unreadable)?;
            *input = rest.strip_prefix(b"\r\n").ok_or_else(unreadable)?;
            Value::BulkString(text.to_vec())
        }
        Head::List(Some(count)) => {
            let depth = depth.checked_sub(1).ok_or_else(unreadable)?;
            // Each value has at least four bytes, and all are there.
            let mut values = Vec::with_capacity(count.min(rest.len() / 4));
            for _ in 0..count {
                values.push(value(input, depth)?);
            }
            Value::Array(values)
        }
    })
}

/// A cursor over the values of a complete answer.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(answer: &'a [u8]) -> Self {
        Self { rest: answer }
    }

    /// Returns the number of bytes still to come.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Returns the number of values of the list that comes next; `None` for a list that does not
    /// exist.
    pub(crate) fn list(&mut self) -> RedisResult<Option<usize>> {
        match head(self.rest)? {
            Some((Head::List(count), rest)) => {
                self.rest = rest;
                Ok(count)
            }
            _ => Err(unreadable()),
        }
    }

    /// Returns the text that comes next; `None` for any other value, which must not be a list.
    pub(crate) fn text(&mut self) -> RedisResult<Option<&'a [u8]>> {
        match head(self.rest)? {
            Some((Head::Text(Some(length)), rest)) => {
                let (text, rest) = rest.split_at_checked(length).ok_or_else(unreadable)?;
                self.rest = rest.strip_prefix(b"\r\n").ok_or_else(unreadable)?;
                Ok(Some(text))
            }
            Some((Head::List(Some(_)), _)) | None => Err(unreadable()),
            Some((_, rest)) => {
                self.rest = rest;
                Ok(None)
            }
        }
    }
}

/// The head of a value.
enum Head<'a> {
    Line(&'a [u8]),
    Refusal,
    Number(i64),
    /// A text of this many bytes; `None` if it does not exist.
    Text(Option<usize>),
    /// A list of this many values; `None` if it does not exist.
    List(Option<usize>),
}

/// Returns the head of the first value and the input after it; `None` if its line is not complete.
fn head(input: &[u8]) -> RedisResult<Option<(Head<'_>, &[u8])>> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let (line, rest) = (&input[..end], &input[end + 1..]);
    let [kind, line @ .., b'\r'] = line else { return Err(unreadable()) };
    let head = match kind {
        b'$' => Head::Text(length(line)?),
        b'*' => Head::List(length(line)?),
        b':' => Head::Number(number(line)?),
        b'+' => Head::Line(line),
        b'-' => Head::Refusal,
        _ => return Err(unreadable()),
    };
    Ok(Some((head, rest)))
}

/// Returns the length of a text or list; `None` for one that does not exist.
fn length(line: &[u8]) -> RedisResult<Option<usize>> {
    match number(line)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| unreadable()),
    }
}

fn number(line: &[u8]) -> RedisResult<i64> {
    let (digits, sign) = match line {
        [b'-', digits @ ..] => (digits, -1),
        [b'+', digits @ ..] | digits => (digits, 1),
    };
    if digits.is_empty() {
        return Err(unreadable());
    }
    // Built as a negative number, because there is one more negative number than positive ones.
    let negative = digits.iter().try_fold(0_i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_sub(digit)
    });
    negative.and_then(|number| number.checked_mul(-sign)).ok_or_else(unreadable)
}

pub(crate) fn unreadable() -> RedisError {
    RedisError::from((ErrorKind::Parse, "the server's answer is not in the Redis protocol"))
}

/// Returns the error for an answer that would take too much memory.
pub(crate) fn too_long() -> RedisError {
    RedisError::from((ErrorKind::Parse, TOO_LONG))
}

/// Returns `true` for the error of an answer that would take too much memory.
pub(crate) fn is_too_long(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Parse && error.to_string().contains(TOO_LONG)
}

const TOO_LONG: &str = "the server's answer is longer than 1 GiB";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the length of the answer at the start of `input`, which arrives in pieces of this
    /// size.
    fn complete(input: &[u8], piece: usize) -> RedisResult<Option<usize>> {
        let mut outline = Outline::new();
        for end in (0..input.len()).step_by(piece) {
            assert_eq!(outline.complete(&input[..end])?, None, "it is not all there");
        }
        outline.complete(input)
    }

    fn encode(value: &Value) -> Vec<u8> {
        match value {
            Value::Okay => b"+OK\r\n".to_vec(),
            Value::SimpleString(line) => format!("+{line}\r\n").into_bytes(),
            Value::Int(number) => format!(":{number}\r\n").into_bytes(),
            Value::BulkString(text) => [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat(),
            Value::Array(list) => {
                let values = list.iter().flat_map(encode);
                format!("*{}\r\n", list.len()).into_bytes().into_iter().chain(values).collect()
            }
            _ => b"$-1\r\n".to_vec(),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            "[a-z]{0,9}".prop_map(Value::SimpleString),
            any::<Vec<u8>>().prop_map(Value::BulkString),
        ];
        leaf.prop_recursive(4, 40, 5, |value| prop::collection::vec(value, 0..5).prop_map(Value::Array))
    }

    /// Returns parts of answers, whether they fit together or not.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        const HEADS: [&str; 10] = [
            "*2\r\n",
            "*99999999999\r\n",
            "$3\r\n",
            "$99999999999\r\n",
            "$-1\r\n",
            ":1\r\n",
            "-E\r\n",
            "abc\r\n",
            "*",
            "9",
        ];
        prop_oneof![prop::sample::select(&HEADS[..]).prop_map(|head| head.as_bytes().to_vec()), any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn reads_what_the_client_reads(value in values(), piece in 1_usize..9) {
            let wire = encode(&value);
            prop_assert_eq!(complete(&wire, piece).unwrap(), Some(wire.len()));
            prop_assert_eq!(read(&wire).unwrap(), ::redis::parse_redis_value(&wire).unwrap());
        }

        #[test]
        fn survives_anything(parts in prop::collection::vec(part(), 0..12)) {
            let wire = parts.concat();
            if let Ok(Some(length)) = Outline::new().complete(&wire) {
                prop_assert!(length <= wire.len());
                let _no_panic = read(&wire[..length]);
            }
            let _no_panic = read(&wire);
        }
    }

    #[test]
    fn stops_at_the_end_of_an_answer() {
        assert_eq!(complete(b"*2\r\n$3\r\na\r\n\r\n:1\r\n", 1).unwrap(), Some(17));
        let mut outline = Outline::new();
        assert_eq!(outline.complete(b"$5\r\nab\r\n:1").unwrap(), None);
        assert_eq!(outline.complete(b":1\r\n:2\r\n").unwrap(), Some(4));
    }

    #[test]
    fn says_how_much_is_lacking() {
        let mut outline = Outline::new();
        let input = b"$1000000\r\nab";
        assert_eq!(outline.complete(input).unwrap(), None);
        assert_eq!(outline.lacking(input), 1_000_000);
    }

    #[test]
    fn bounds_lines_and_answers_before_they_came() {
        let line = [b"+".as_slice(), &vec![b'x'; LONGEST_LINE - 2], b"\r\n"].concat();
        assert_eq!(complete(&line, 1).unwrap(), Some(line.len()));
        assert!(complete(&[b'x'; LONGEST_LINE + 2], 1000).is_err(), "a line without an end");
        assert!(is_too_long(&complete(b"$1073741824\r\n", 99).unwrap_err()));
        assert!(complete(b"*3\r\n$1073741000\r\n", 99).unwrap().is_none());
    }

    /// A line that comes byte by byte is not searched from its start for each of them.
    #[test]
    fn searches_a_line_once() {
        let line = [b"+".as_slice(), &vec![b'x'; LONGEST_LINE - 2]].concat();
        let mut outline = Outline::new();
        for end in 1..=line.len() {
            assert_eq!(outline.complete(&line[..end]).unwrap(), None);
            assert_eq!(outline.searched, end, "the next search begins here");
        }
    }

    #[test]
    fn tells_refusals_apart() {
        let Value::ServerError(refusal) = read(b"-NOGROUP no such group\r\n").unwrap() else { panic!("a refusal") };
        assert_eq!((refusal.code(), refusal.details()), ("NOGROUP", Some("no such group")));
    }

    #[test]
    fn refuses_what_no_server_says() {
        let deep = "*1\r\n".repeat(100_000) + ":1\r\n";
        assert_eq!(complete(deep.as_bytes(), 5).unwrap(), Some(deep.len()));
        for wrong in
            ["x\r\n", ":1\n", "\r\n", ":\r\n", ":1x\r\n", "$-2\r\n", "$9223372036854775808\r\n", "*-7\r\n", &deep]
        {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong:.20}");
        }
        assert!(complete(b"*9223372036854775807\r\n*9223372036854775807\r\n*9223372036854775807\r\n", 99).is_err());
        assert_eq!(read(b":-9223372036854775808\r\n").unwrap(), Value::Int(i64::MIN));
    }
}
