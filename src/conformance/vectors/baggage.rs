//! Forms of the `baggage`.

use super::{Vector, filled};

type Entries = &'static [[&'static str; 3]];

/// Description, values in their order, and the entries: key, value and properties.
const LISTS: &[(&str, &[&str], Entries)] = &[
    ("one member", &["SomeKey=SomeValue"], &[["SomeKey", "SomeValue", ""]]),
    (
        "two members",
        &["SomeKey=SomeValue,SomeKey2=SomeValue2"],
        &[["SomeKey", "SomeValue", ""], ["SomeKey2", "SomeValue2", ""]],
    ),
    ("blanks around everything", &["a \t = \t 1 \t , \t b \t = \t 2 \t "], &[["a", "1", ""], ["b", "2", ""]]),
    ("a property", &["a=1;p"], &[["a", "1", "p"]]),
    ("a property in blanks", &["a \t = \t 1 \t ; \t p"], &[["a", "1", "p"]]),
    ("a property with a value", &["a=1;p=x"], &[["a", "1", "p=x"]]),
    ("a property with a value in blanks", &["a \t = \t 1 \t ; \t p \t = \t x"], &[["a", "1", "p=x"]]),
    ("two properties", &["a=1;p;q=x"], &[["a", "1", "p;q=x"]]),
    ("two properties in blanks", &["a \t = \t 1 \t ; \t p \t ; \t q \t = \t x"], &[["a", "1", "p;q=x"]]),
    ("properties of two members", &["a=1;p,b=2;q=x"], &[["a", "1", "p"], ["b", "2", "q=x"]]),
    ("properties of two members in blanks", &["a = 1 ; p , b = 2 ; q = x"], &[["a", "1", "p"], ["b", "2", "q=x"]]),
    ("a property with an empty value", &["a=1;p="], &[["a", "1", "p="]]),
    ("a property with two equals signs", &["a=1;p=x=y"], &[["a", "1", "p=x=y"]]),
    ("empty properties", &["a=1;;p; ;"], &[["a", "1", "p"]]),
    ("an equals sign in a value", &["a=1=2"], &[["a", "1=2", ""]]),
    ("equals signs behind a value", &["token=Zm9vYg=="], &[["token", "Zm9vYg==", ""]]),
    ("an empty value", &["a="], &[["a", "", ""]]),
    ("an empty value before a member", &["a=,b=2"], &[["a", "", ""], ["b", "2", ""]]),
    (
        "escapes of every kind of character",
        &["a=%09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29"],
        &[["a", "\t \"';=asdf!@#$%^&*()", ""]],
    ),
    ("escapes in blanks", &["a \t = \t %09%20%22%27 \t "], &[["a", "\t \"'", ""]]),
    ("escapes in lower case", &["a=%c3%a9"], &[["a", "é", ""]]),
    ("escapes of what needs none", &["a=%41%6a%6A"], &[["a", "Ajj", ""]]),
    ("escaped blanks around a value", &["a=%20b%20"], &[["a", " b ", ""]]),
    ("an escaped comma", &["a=1%2Cb%3D2"], &[["a", "1,b=2", ""]]),
    ("escapes of what is not UTF-8", &["a=x%FFy"], &[["a", "x\u{fffd}y", ""]]),
    ("an escape cut short", &["a=%4"], &[["a", "%4", ""]]),
    ("an escape that is none", &["a=%zz"], &[["a", "%zz", ""]]),
    ("a percent sign alone", &["a=100%"], &[["a", "100%", ""]]),
    ("escaped properties, which stay as they are", &["a=1;p=%2C%3B%0D%0A"], &[["a", "1", "p=%2C%3B%0D%0A"]]),
    ("what looks like an escape in a key", &["%0d%0a=1"], &[["%0d%0a", "1", ""]]),
    ("every character of a key", &["!#$%&'*+-.^_`|~09azAZ=1"], &[["!#$%&'*+-.^_`|~09azAZ", "1", ""]]),
    (
        "every character of a value",
        &["a=!#$&'()*+-./09:<=>?@AZ[]^_`az{|}~"],
        &[["a", "!#$&'()*+-./09:<=>?@AZ[]^_`az{|}~", ""]],
    ),
    ("an empty header", &[""], &[]),
    ("blanks and commas alone", &[" , \t ,"], &[]),
    ("empty members", &[",a=1,,b=2,"], &[["a", "1", ""], ["b", "2", ""]]),
    ("two headers", &["a=1", "b=2"], &[["a", "1", ""], ["b", "2", ""]]),
    ("an empty header before another", &["", "b=2"], &[["b", "2", ""]]),
    ("a key in two headers, of which the last stays", &["a=1", "a=2"], &[["a", "2", ""]]),
    ("a key twice, of which the last stays", &["a=1;p,b=2,a=3"], &[["a", "3", ""], ["b", "2", ""]]),
    ("keys that differ in case", &["a=1,A=2"], &[["A", "2", ""], ["a", "1", ""]]),
    ("a member without an equals sign among others", &["a=1,b,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a member without a key among others", &["a=1,=2,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a key with a blank among others", &["a=1,b b=2,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a key that is not ASCII among others", &["a=1,größe=2,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a key in parentheses among others", &["a=1,(b)=2,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a value with a blank among others", &["a=1,b=2 2,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a value in quotation marks among others", &["a=1,b=\"2\",c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a value with a backslash among others", &["a=1,b=2\\2,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a value that is not ASCII among others", &["a=1,b=größe,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a bad property among others", &["a=1,b=2;p q,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
    ("a property without a key among others", &["a=1,b=2;=x,c=3"], &[["a", "1", ""], ["c", "3", ""]]),
];

/// Returns every form of the header with the application's key-value pairs.
pub(in super::super) fn baggage() -> Vec<Vector> {
    let lists = LISTS.iter().map(|(what, values, entries)| {
        let vector = Vector::continued(*what).entries(entries);
        values.iter().fold(vector, |vector, value| vector.header("baggage", *value))
    });
    lists.chain(names()).chain(limits()).collect()
}

fn names() -> Vec<Vector> {
    let one: Entries = &[["a", "1", ""]];
    vec![
        Vector::continued("a name with a capital").header("Baggage", "a=1").entries(one),
        Vector::continued("a name in upper case").header("BAGGAGE", "a=1").entries(one),
        Vector::continued("two headers in two cases")
            .header("baggage", "a=1")
            .header("Baggage", "b=2")
            .entries(&[["a", "1", ""], ["b", "2", ""]]),
        Vector::continued("a name of another kind").header("correlation-context", "a=1"),
        Vector::new("no trace at all").header("baggage", "a=1").entries(one),
        Vector::new("a trace that is begun anew")
            .header("traceparent", filled("ff-{T}-{S}-01"))
            .header("baggage", "a=1")
            .entries(one),
    ]
}

/// Returns forms at the limits of the specification, and one beyond each.
fn limits() -> Vec<Vector> {
    let members = |count: usize| (0..count).map(|number| format!("key{number:02}=value")).collect::<Vec<_>>().join(",");
    let entries = |count: usize| {
        (0..count).map(|number| [format!("key{number:02}"), "value".to_owned(), String::new()]).collect::<Vec<_>>()
    };
    let longest = "0123456789".repeat(819);
    let limited = |what: &str, value: String, entries: Vec<[String; 3]>| {
        let mut vector = Vector::continued(what).header("baggage", value);
        vector.read.baggage = entries;
        vector
    };
    let one = |value: &str| vec![["a".to_owned(), value.to_owned(), String::new()]];
    let many: Vec<String> = (0..16).map(|number| format!("key{number:02}={}", "v".repeat(505))).collect();
    let of_many = (0..16).map(|number| [format!("key{number:02}"), "v".repeat(505), String::new()]).collect();
    vec![
        limited("64 members", members(64), entries(64)),
        limited("70 members, of which the first 64 stay", members(70), entries(64)),
        limited("a member of 8192 bytes", format!("a={longest}"), one(&longest)),
        limited("a member of 8193 bytes before another", format!("b={longest}0,a=1"), one("1")),
        limited("a member beyond 8192 bytes", format!("a={longest},b=1"), one(&longest)),
        limited("8191 bytes of members", many.join(","), of_many),
    ]
}
