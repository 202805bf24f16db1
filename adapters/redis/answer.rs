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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The length of the answer at the head of `input`, told of it in these pieces.
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

    /// Something of what answers are made of, whether it fits or not.
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
