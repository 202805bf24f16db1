//! Forms of the `traceparent`.

use super::{Pairs, SPAN, TRACE, Vector, filled};

/// Description, value, and the flags with which the trace is continued.
const CONTINUED: &[(&str, &str, &str)] = &[
    ("version 00, sampled", "00-{T}-{S}-01", "01"),
    ("version 00, not sampled", "00-{T}-{S}-00", "00"),
    ("the flag for a random trace id alone", "00-{T}-{S}-02", "02"),
    ("both flags that are known", "00-{T}-{S}-03", "03"),
    ("every flag set", "00-{T}-{S}-ff", "03"),
    ("unknown flags beside the sampled one", "00-{T}-{S}-09", "01"),
    ("unknown flags alone", "00-{T}-{S}-80", "00"),
    ("version 01", "01-{T}-{S}-01", "01"),
    ("version fe, the highest there may be", "fe-{T}-{S}-00", "00"),
    ("version cc as long as version 00", "cc-{T}-{S}-01", "01"),
    ("version cc with a field more", "cc-{T}-{S}-01-what-comes-in-time", "01"),
    ("version cc with an empty field more", "cc-{T}-{S}-01-", "01"),
    ("version cc with every flag", "cc-{T}-{S}-ff", "03"),
    ("a space in front", " 00-{T}-{S}-01", "01"),
    ("a tabulator in front", "\t00-{T}-{S}-01", "01"),
    ("a space behind", "00-{T}-{S}-01 ", "01"),
    ("a tabulator behind", "00-{T}-{S}-01\t", "01"),
    ("blanks of both kinds around", "\t 00-{T}-{S}-01 \t", "01"),
];

/// Description and value of headers with which the trace starts anew.
const BEGUN_ANEW: &[(&str, &str)] = &[
    ("empty", ""),
    ("blanks alone", " \t "),
    ("a word", "sampled"),
    ("dashes alone", "-------------------------------------------------------"),
    ("version 00 with a dot behind", "00-{T}-{S}-01."),
    ("version 00 with a dash behind", "00-{T}-{S}-01-"),
    ("version 00 with a field more", "00-{T}-{S}-01-what-comes-in-time"),
    ("version 00 with a digit more", "00-{T}-{S}-010"),
    ("version cc with a field more behind a dot", "cc-{T}-{S}-01.what-comes-in-time"),
    ("version cc with a digit more", "cc-{T}-{S}-010"),
    ("version cc cut short", "cc-{T}-{S}-0"),
    ("version ff, which there is not", "ff-{T}-{S}-01"),
    ("version ff with a field more", "ff-{T}-{S}-01-more"),
    ("a dot for the first digit of the version", ".0-{T}-{S}-01"),
    ("a dot for the last digit of the version", "0.-{T}-{S}-01"),
    ("a version of no digit", "-{T}-{S}-01"),
    ("a version of one digit", "0-{T}-{S}-01"),
    ("a version of three digits", "000-{T}-{S}-01"),
    ("a version of four digits", "0000-{T}-{S}-01"),
    ("a trace id of zeroes", "00-{0}-{S}-01"),
    ("a trace id of zeroes in version cc", "cc-{0}-{S}-01-more"),
    ("a trace id of 31 digits", "00-{t}-{S}-01"),
    ("a trace id of 33 digits", "00-{T}0-{S}-01"),
    ("a trace id of 16 digits", "00-{S}-{S}-01"),
    ("no trace id", "00--{S}-01"),
    ("a span id of zeroes", "00-{T}-{z}-01"),
    ("a span id of 15 digits", "00-{T}-{s}-01"),
    ("a span id of 17 digits", "00-{T}-{S}0-01"),
    ("no span id", "00-{T}--01"),
    ("flags of one digit", "00-{T}-{S}-1"),
    ("flags of three digits", "00-{T}-{S}-001"),
    ("no flags", "00-{T}-{S}-"),
    ("no field for flags", "00-{T}-{S}"),
    ("a dot for the first digit of the flags", "00-{T}-{S}-.0"),
    ("a dot for the last digit of the flags", "00-{T}-{S}-0."),
    ("upper case in the version", "CC-{T}-{S}-01"),
    ("upper case in the flags", "00-{T}-{S}-0A"),
    ("underscores for dashes", "00_{T}_{S}_01"),
    ("colons for dashes", "00:{T}:{S}:01"),
    ("a dash too far to the left", "00-{t}-0{S}-01"),
    ("quotation marks around", "\"00-{T}-{S}-01\""),
    ("a list of two equal ones in one header", "00-{T}-{S}-01,00-{T}-{S}-01"),
    ("a blank within", "00-{T} -{S}-01"),
];

/// Description, headers, and the flags with which the trace is continued, if it is.
const NAMES: &[(&str, Pairs<'_>, Option<&str>)] = &[
    ("no header", &[], None),
    ("a name with capitals", &[("TraceParent", "00-{T}-{S}-01")], Some("01")),
    ("a name with a capital in front", &[("Traceparent", "00-{T}-{S}-01")], Some("01")),
    ("a name in every other case", &[("TrAcEpArEnT", "00-{T}-{S}-01")], Some("01")),
    ("a name in upper case", &[("TRACEPARENT", "00-{T}-{S}-01")], Some("01")),
    ("a name with a dash", &[("trace-parent", "00-{T}-{S}-01")], None),
    ("a name with a dot", &[("trace.parent", "00-{T}-{S}-01")], None),
    ("a name with an underscore", &[("trace_parent", "00-{T}-{S}-01")], None),
    ("a name that is longer", &[("traceparents", "00-{T}-{S}-01")], None),
    ("the same twice", &[("traceparent", "00-{T}-{S}-01"), ("traceparent", "00-{T}-{S}-01")], Some("01")),
    (
        "the same twice, one in blanks",
        &[("traceparent", "00-{T}-{S}-01"), ("traceparent", " 00-{T}-{S}-01")],
        Some("01"),
    ),
    ("the same in two cases", &[("traceparent", "00-{T}-{S}-01"), ("Traceparent", "00-{T}-{S}-01")], Some("01")),
    ("two traces", &[("traceparent", "00-{T}-{S}-01"), ("traceparent", "00-{t}1-{S}-01")], None),
    ("two spans", &[("traceparent", "00-{T}-{S}-01"), ("traceparent", "00-{T}-{s}1-01")], None),
    ("two decisions", &[("traceparent", "00-{T}-{S}-01"), ("traceparent", "00-{T}-{S}-00")], None),
    ("two versions of the same", &[("traceparent", "00-{T}-{S}-01"), ("traceparent", "cc-{T}-{S}-01")], None),
    ("a good one before a bad one", &[("traceparent", "00-{T}-{S}-01"), ("traceparent", "bad")], None),
    ("a bad one before a good one", &[("traceparent", "bad"), ("Traceparent", "00-{T}-{S}-01")], None),
    ("an empty one before a good one", &[("traceparent", ""), ("traceparent", "00-{T}-{S}-01")], None),
    (
        "three, the last of which differs",
        &[("traceparent", "00-{T}-{S}-01"), ("traceparent", "00-{T}-{S}-01"), ("traceparent", "00-{T}-{S}-00")],
        None,
    ),
];

/// Characters that are not valid digits of an id: neighbours of valid digits, and characters with a
/// special meaning elsewhere.
const NO_DIGITS: &str = ".gGAFxz-_:/@[`{+ \t%";

/// Returns every form of the header that identifies the parent.
pub(in super::super) fn traceparents() -> Vec<Vector> {
    let continued = CONTINUED
        .iter()
        .map(|(what, value, flags)| Vector::new(*what).header("traceparent", filled(value)).continues(flags));
    let anew = BEGUN_ANEW.iter().map(|(what, value)| Vector::new(*what).header("traceparent", filled(value)));
    let named = NAMES.iter().map(|(what, headers, flags)| {
        let empty = Vector::new(*what);
        let vector = headers.iter().fold(empty, |vector, (name, value)| vector.header(name, filled(value)));
        flags.iter().fold(vector, |vector, flags| vector.continues(flags))
    });
    continued.chain(anew).chain(named).chain(illegal_characters()).collect()
}

/// Returns headers in which the first or the last digit of an id is replaced by an invalid
/// character.
fn illegal_characters() -> impl Iterator<Item = Vector> {
    let good = filled("00-{T}-{S}-01");
    let (trace, span) = (3, 3 + TRACE.len() + 1);
    let places = [trace, trace + TRACE.len() - 1, span, span + SPAN.len() - 1];
    places.into_iter().flat_map(move |place| {
        let good = good.clone();
        NO_DIGITS.chars().map(move |character| {
            let mut value = good.clone();
            value.replace_range(place..=place, character.encode_utf8(&mut [0; 4]));
            Vector::new(format!("{character:?} at place {place}")).header("traceparent", value)
        })
    })
}
