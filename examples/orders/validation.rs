//! Which orders are taken, and what is said about those that are not.

use std::ops::RangeInclusive;

use serde_json::error::Category;

use crate::order::Order;

const CURRENCIES: [&str; 19] = [
    "AUD", "BRL", "CAD", "CHF", "CZK", "DKK", "EUR", "GBP", "HUF", "INR", "JPY", "KRW", "MXN", "NOK", "PLN", "RON",
    "SEK", "USD", "ZAR",
];
const MAX_ITEMS: i64 = 50;
const MAX_QUANTITY: i64 = 999;
/// In minor units: 100,000.00 of most currencies.
const MAX_UNIT_PRICE: i64 = 10_000_000;
const MAX_TEXT: usize = 120;
const MAX_NOTE: usize = 500;

/// Why an order is not taken: in one sentence, and field by field where it could be read at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) error: String,
    pub(crate) problems: Vec<String>,
}

/// Reads an order and checks it.
pub(crate) fn parse(body: &[u8]) -> Result<Order, Invalid> {
    // Serde would take a list of the fields' values too.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Invalid { error: "not an order: a JSON array, not an object".to_owned(), problems: Vec::new() });
    }
    let order: Order = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let problems = problems(&order);
    if problems.is_empty() {
        return Ok(order);
    }
    Err(Invalid { error: "the order is not valid".to_owned(), problems })
}

fn unreadable(error: &serde_json::Error) -> Invalid {
    let error = match error.classify() {
        Category::Data => format!("not an order: {error}"),
        Category::Eof => format!("JSON that is cut off: {error}"),
        Category::Syntax | Category::Io => format!("not JSON: {error}"),
    };
    Invalid { error, problems: Vec::new() }
}

/// Every rule the order breaks, so that a client need not find them one by one.
fn problems(order: &Order) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |field: &str, problem: Option<String>| {
        problems.extend(problem.map(|problem| format!("{field}: {problem}")));
    };
    let Order { id, placed_at, customer, currency, items, ship_to, carrier, note } = order;
    check("id", not_an_id(id));
    check("placed_at", not_a_time(placed_at));
    check("customer.id", not_an_id(&customer.id));
    check("customer.name", not_a_line(&customer.name, MAX_TEXT));
    check("customer.email", not_an_address(&customer.email));
    check("currency", not_a_currency(currency));
    check("items", outside(i64::try_from(items.len()).unwrap_or(i64::MAX), 1..=MAX_ITEMS));
    for (index, item) in items.iter().enumerate() {
        check(&format!("items[{index}].sku"), not_an_id(&item.sku));
        check(&format!("items[{index}].quantity"), outside(item.quantity, 1..=MAX_QUANTITY));
        check(&format!("items[{index}].unit_price_minor"), outside(item.unit_price_minor, 0..=MAX_UNIT_PRICE));
    }
    check("ship_to.street", not_a_line(&ship_to.street, MAX_TEXT));
    check("ship_to.city", not_a_line(&ship_to.city, MAX_TEXT));
    check("ship_to.postal_code", not_a_line(&ship_to.postal_code, MAX_TEXT));
    check("ship_to.country", not_a_country(&ship_to.country));
    check("carrier", not_a_line(carrier, MAX_TEXT));
    check("note", note.as_deref().and_then(|note| not_a_line(note, MAX_NOTE)));
    problems
}

fn not_an_id(text: &str) -> Option<String> {
    let fits = (1..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (!fits).then(|| format!("{} is not 1 to 40 letters, digits and dashes", quoted(text)))
}

/// A line break in a name would become one in a letter head, or in a log.
fn not_a_line(text: &str, most: usize) -> Option<String> {
    match text.chars().count() {
        0 => Some("is empty".to_owned()),
        length if length > most => Some(format!("has {length} characters, at most {most} are allowed")),
        _ => text.chars().any(char::is_control).then(|| "has control characters".to_owned()),
    }
}

fn not_an_address(text: &str) -> Option<String> {
    let parts = text.split_once('@').filter(|(name, host)| !name.is_empty() && host.contains('.'));
    let fits = parts.is_some() && !text.contains(char::is_whitespace) && not_a_line(text, MAX_TEXT).is_none();
    (!fits).then(|| format!("{} is not an e-mail address", quoted(text)))
}

fn not_a_time(text: &str) -> Option<String> {
    let pattern = "dddd-dd-ddTdd:dd:ddZ";
    let same = |(byte, wanted): (u8, u8)| if wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted };
    let fits = text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(same);
    (!fits).then(|| format!("{} is not a time in UTC such as 2026-11-23T06:01:37Z", quoted(text)))
}

fn not_a_currency(text: &str) -> Option<String> {
    (!CURRENCIES.contains(&text)).then(|| format!("{} is none of {}", quoted(text), CURRENCIES.join(" ")))
}

fn not_a_country(text: &str) -> Option<String> {
    let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    (!fits).then(|| format!("{} is not two capital letters", quoted(text)))
}

fn outside(number: i64, allowed: RangeInclusive<i64>) -> Option<String> {
    (!allowed.contains(&number)).then(|| format!("{number} is not {} to {}", allowed.start(), allowed.end()))
}

/// What was sent, up to a length, and with escapes for what does not show.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}
