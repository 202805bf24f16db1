//! Forms of the `tracestate`, each beside a valid `traceparent` unless stated otherwise.

use super::{Pairs, Vector, filled, members};

/// Description, values in their order, and the list in normal form; empty if it is dropped.
const LISTS: &[(&str, &[&str], &str)] = &[
    ("one member", &["foo=1"], "foo=1"),
    ("two members", &["foo=1,bar=2"], "foo=1,bar=2"),
    ("an empty value", &[""], ""),
    ("blanks alone", &[" \t"], ""),
    ("commas alone", &[",,,"], ""),
    ("an empty header behind another", &["foo=1", ""], "foo=1"),
    ("an empty header before another", &["", "foo=1"], "foo=1"),
    (
        "three headers, joined in their order",
        &["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
        "foo=1,bar=2,rojo=1,congo=2,baz=3",
    ),
    ("empty members", &[",foo=1,,bar=2,"], "foo=1,bar=2"),
    ("an empty member of blanks", &["foo=1, ,\t,bar=2"], "foo=1,bar=2"),
    ("the same member twice", &["foo=1,foo=1"], "foo=1"),
    ("a key twice, of which the first stays", &["foo=1,foo=2"], "foo=1"),
    ("the same member in two headers", &["foo=1", "foo=1"], "foo=1"),
    ("a key in two headers", &["foo=1", "foo=2"], "foo=1"),
    ("keys twice among others", &["foo=1,bar=2,foo=3,baz=4,bar=5"], "foo=1,bar=2,baz=4"),
    (
        "every character of a key",
        &["abcdefghijklmnopqrstuvwxyz0123456789_-*/@=1"],
        "abcdefghijklmnopqrstuvwxyz0123456789_-*/@=1",
    ),
    ("a key with a system", &["tenant-1_*/@system-2_*/=1"], "tenant-1_*/@system-2_*/=1"),
    (
        "every character of a value",
        &["foo= !\"#$%&'()*+-./0123456789:;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"],
        "foo= !\"#$%&'()*+-./0123456789:;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~",
    ),
    ("blanks around members", &["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
    ("tabulators around members", &["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
    ("a space in front", &[" foo=1"], "foo=1"),
    ("a tabulator in front", &["\tfoo=1"], "foo=1"),
    ("a space behind", &["foo=1 "], "foo=1"),
    ("a tabulator behind", &["foo=1\t"], "foo=1"),
    ("blanks of both kinds around", &["\t foo=1 \t"], "foo=1"),
    ("a value that begins with blanks", &["foo=  1,bar=2"], "foo=  1,bar=2"),
    ("a blank within a value", &["foo=a b"], "foo=a b"),
    ("a key that begins with a digit", &["1foo=1,bar=2"], "1foo=1,bar=2"),
    ("a key of one digit", &["0=0"], "0=0"),
    ("a key that ends with an at sign", &["foo@=1,bar=2"], "foo@=1,bar=2"),
    ("a key with two at signs in a row", &["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
    ("a key with two at signs", &["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
    ("a key that begins with an at sign", &["@foo=1,bar=2"], ""),
    ("a key that begins with an underscore", &["_foo=1,bar=2"], ""),
    ("a key that begins with a dash", &["bar=2,-foo=1"], ""),
    ("a blank behind a key", &["foo =1"], ""),
    ("a key in upper case", &["FOO=1"], ""),
    ("a key with a capital", &["bar=2,fOo=1"], ""),
    ("a key with a dot", &["foo.bar=1"], ""),
    ("a key with a semicolon", &["foo;=1,bar=2"], ""),
    ("a key that is not ASCII", &["größe=1,bar=2"], ""),
    ("an empty key", &["=1,bar=2"], ""),
    ("two equals signs", &["foo=bar=baz"], ""),
    ("a member without a value", &["foo=,bar=3"], ""),
    ("a member of blanks for a value", &["foo= ,bar=3"], ""),
    ("a member without an equals sign", &["foo,bar=3"], ""),
    ("a bad member in the second of two headers", &["foo=1", "BAR=2"], ""),
    ("a value with a tabulator within", &["foo=a\tb"], ""),
    ("a value that is not ASCII", &["foo=größe"], ""),
];

/// Description, headers beside a valid `traceparent`, and the list in normal form.
const NAMES: &[(&str, Pairs<'_>, &str)] = &[
    ("no header", &[], ""),
    ("a name with capitals", &[("TraceState", "foo=1")], "foo=1"),
    ("a name in every other case", &[("TrAcEsTaTe", "foo=1")], "foo=1"),
    ("a name in upper case", &[("TRACESTATE", "foo=1")], "foo=1"),
    ("a name with a dash", &[("trace-state", "foo=1")], ""),
    ("a name with a dot", &[("trace.state", "foo=1")], ""),
];

/// Returns every form of the header with the data of tracing systems.
pub(in super::super) fn tracestates() -> Vec<Vector> {
    let lists = LISTS.iter().map(|(what, values, state)| listed(*what, values, *state));
    let names = NAMES.iter().map(|(what, headers, state)| {
        let vector = Vector::continued(*what).state(*state);
        headers.iter().fold(vector, |vector, (name, value)| vector.header(name, *value))
    });
    let cases = Vector::continued("two headers in two cases")
        .header("tracestate", "foo=1")
        .header("Tracestate", "bar=2")
        .state("foo=1,bar=2")
        .in_any_order();
    lists.chain(names).chain([cases]).chain(limits()).chain(beside_no_parent()).collect()
}

fn listed(what: impl Into<String>, values: &[impl AsRef<str>], state: impl Into<String>) -> Vector {
    let vector = Vector::continued(what).state(state);
    values.iter().fold(vector, |vector, value| vector.header("tracestate", value.as_ref()))
}

/// Returns forms at the limits of the specification, and one beyond each.
fn limits() -> Vec<Vector> {
    let (most, more) = ("z".repeat(256), "z".repeat(257));
    let all = members(1, 32);
    let longest: Vec<String> = (0..32).map(|number| format!("{number:0>256}={}", "v".repeat(256))).collect();
    let longest = longest.join(",");
    let with = |key: &str| format!("{key}=1");
    vec![
        listed("32 members", &[&all], &all),
        listed("33 members", &[&members(1, 33)], ""),
        listed(
            "32 members in four headers",
            &[members(1, 10), members(11, 20), members(21, 30), members(31, 32)],
            &all,
        ),
        listed("33 members in four headers", &[members(1, 10), members(11, 20), members(21, 30), members(31, 33)], ""),
        listed("32 members and as many empty ones", &[all.replace(',', " ,, ")], &all),
        listed("33 times the same member", &[vec!["foo=1"; 33].join(",")], ""),
        listed("a key of 256 characters", &["foo=1", &with(&most)], format!("foo=1,{most}=1")),
        listed("a key of 257 characters", &["foo=1", &with(&more)], ""),
        listed(
            "a key of 241 characters and a system of 14",
            &["foo=1", &with(&format!("{}@{}", "t".repeat(241), "v".repeat(14)))],
            format!("foo=1,{}@{}=1", "t".repeat(241), "v".repeat(14)),
        ),
        // Limits of level 1 of the specification, which no longer apply.
        listed(
            "a key of 242 characters and a system",
            &["foo=1", &with(&format!("{}@v", "t".repeat(242)))],
            format!("foo=1,{}@v=1", "t".repeat(242)),
        ),
        listed("a system of 15 characters", &["foo=1", "t@vvvvvvvvvvvvvvv=1"], "foo=1,t@vvvvvvvvvvvvvvv=1"),
        listed("a value of 256 characters", &[format!("foo={most}")], format!("foo={most}")),
        listed("a value of 257 characters", &[format!("bar=1,foo={more}")], ""),
        listed(
            "512 characters",
            &[format!("foo={most},bar={}", &most[..247])],
            format!("foo={most},bar={}", &most[..247]),
        ),
        listed("the longest list there may be", &[&longest], &longest),
        listed("a member more than the longest list", &[&longest, "a=1"], ""),
    ]
}

/// Returns lists without a usable parent, which have no meaning, and one with a parent of a later
/// version.
fn beside_no_parent() -> Vec<Vector> {
    let beside = |what: &str, parent: &str, list: &str| {
        Vector::new(what).header("traceparent", filled(parent)).header("tracestate", list)
    };
    vec![
        Vector::new("a list and no parent").header("tracestate", "foo=1"),
        Vector::new("a longer list and no parent").header("tracestate", "foo=1,bar=2"),
        beside("a list beside a parent of zeroes", "00-{0}-{S}-01", "foo=1"),
        beside("a list beside a parent of version ff", "ff-{T}-{S}-01", "foo=1"),
        beside("a list beside two parents", "00-{T}-{S}-01", "foo=1").header("traceparent", filled("00-{T}-{S}-00")),
        beside("a list beside a parent of version cc", "cc-{T}-{S}-01-more", "foo=1,0bar=2")
            .continues("01")
            .state("foo=1,0bar=2"),
    ]
}
