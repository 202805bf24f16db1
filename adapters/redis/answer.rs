//! Reads the server's answers: the second version of Redis's protocol, in which all is text, numbers, lists and refusals.

use ::redis::{ErrorKind, RedisError, RedisResult, Value};

/// How deep lists may lie within lists. The answers of streams have four levels.
const DEEPEST: usize = 16;

/// How far an answer that is coming in was gone through, so that nothing is gone through twice.
#[derive(Debug)]
pub(super) struct Outline {
    /// Up to here values are complete.
    at: usize,
    /// How many values are still to come.
    missing: usize,
    /// How long the input must be for the next one, as far as is known.
    wanted: usize,
}

impl Outline {
    pub(super) fn new() -> Self {
        Self { at: 0, missing: 1, wanted: 0 }
    }

    /// The length of the answer that `input` begins with, once it is all there.
    pub(super) fn complete(&mut self, input: &[u8]) -> RedisResult<Option<usize>> {
        while self.missing > 0 {
            let Some((head, rest)) = head(&input[self.at..])? else { return Ok(None) };
            let mut end = input.len() - rest.len();
            let mut more = 0;
            match head {
                Head::Text(Some(length)) => {
                    end = end.checked_add(length).and_then(|end| end.checked_add(2)).ok_or_else(unreadable)?;
                    if end > input.len() {
                        self.wanted = end;
                        return Ok(None);
                    }
                }
                Head::List(Some(count)) => more = count,
                _ => {}
            }
            self.at = end;
            self.missing = (self.missing - 1).checked_add(more).ok_or_else(unreadable)?;
        }
        Ok(Some(self.at))
    }

    /// How many bytes are lacking at least.
    pub(super) fn lacking(&self, input: &[u8]) -> usize {
        self.wanted.saturating_sub(input.len())
    }
}

/// Reads a complete answer.
pub(super) fn read(mut input: &[u8]) -> RedisResult<Value> {
    value(&mut input, DEEPEST)
}

fn value(input: &mut &[u8], depth: usize) -> RedisResult<Value> {
    let whole = *input;
    let (head, rest) = head(whole)?.ok_or_else(unreadable)?;
    *input = rest;
    Ok(match head {
        Head::Line(line) if line == b"OK" => Value::Okay,
        Head::Line(line) => Value::SimpleString(String::from_utf8_lossy(line).into_owned()),
        // The client knows how to take refusals apart.
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
            // Each is four bytes at least, and all are there.
            let mut values = Vec::with_capacity(count.min(rest.len() / 4));
            for _ in 0..count {
                values.push(value(input, depth)?);
            }
            Value::Array(values)
        }
    })
}

/// Goes through a complete answer, value by value.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(answer: &'a [u8]) -> Self {
        Self { rest: answer }
    }

    /// How many bytes are still to come.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// How many values the list has that comes next; none for a list that does not exist.
    pub(super) fn list(&mut self) -> RedisResult<Option<usize>> {
        match head(self.rest)? {
            Some((Head::List(count), rest)) => {
                self.rest = rest;
                Ok(count)
            }
            _ => Err(unreadable()),
        }
    }

    /// The text that comes next; none for whatever else it is, which must be no list.
    pub(super) fn text(&mut self) -> RedisResult<Option<&'a [u8]>> {
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

/// What a value begins with.
enum Head<'a> {
    Line(&'a [u8]),
    Refusal,
    Number(i64),
    /// A text of that many bytes, or none.
    Text(Option<usize>),
    /// A list of that many values, or none.
    List(Option<usize>),
}

/// The head of the first value and what comes after it; none when its line is not all there.
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

/// The length of a text or list; none for the one that does not exist.
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
    // Negative as it goes, for there is one negative number more than there are positive ones.
    let negative = digits.iter().try_fold(0_i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_sub(digit)
    });
    negative.and_then(|number| number.checked_mul(-sign)).ok_or_else(unreadable)
}

pub(super) fn unreadable() -> RedisError {
    RedisError::from((ErrorKind::Parse, "the server's answer is not in the protocol of Redis"))
}
