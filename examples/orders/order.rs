//! An order as it is posted and as it travels on the topic `orders`.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use serde_json::error::Category;

const CURRENCIES: [&str; 19] = [
    "AUD", "BRL", "CAD", "CHF", "CZK", "DKK", "EUR", "GBP", "HUF", "INR", "JPY", "KRW", "MXN", "NOK", "PLN", "RON",
    "SEK", "USD", "ZAR",
];

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(crate) id: String,
    /// The time in UTC, such as `2026-11-23T06:01:37Z`.
    pub(crate) placed_at: String,
    pub(crate) customer: Customer,
    /// The ISO 4217 code.
    pub(crate) currency: String,
    pub(crate) items: Vec<Item>,
    pub(crate) ship_to: Address,
    pub(crate) carrier: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Customer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    /// The price in the smallest unit of the currency: cents, pence, yen.
    pub(crate) unit_price_minor: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Address {
    pub(crate) street: String,
    pub(crate) city: String,
    pub(crate) postal_code: String,
    /// The ISO 3166-1 alpha-2 code.
    pub(crate) country: String,
}

impl Order {
    /// Reads an order and checks it; the error lists all problems.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        // Serde also accepts an array of the fields' values.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err("not an order: a JSON array, not an object".to_owned());
        }
        let order: Self = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => format!("not an order: {error}"),
            Category::Eof => format!("JSON that is cut off: {error}"),
            Category::Syntax | Category::Io => format!("not JSON: {error}"),
        })?;
        let problems = order.problems();
        if problems.is_empty() { Ok(order) } else { Err(problems.join("; ")) }
    }

    /// Lists every rule that the order breaks, so that a client sees all of them at once.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, field: &str, value: &dyn Debug, rule: &str| {
            if !holds {
                let value: String = format!("{value:?}").chars().take(40).collect();
                problems.push(format!("{field}: {value} is not {rule}"));
            }
        };
        let Self { id, placed_at, customer, currency, items, ship_to, carrier, note } = self;
        for (field, text) in [("id", id), ("customer.id", &customer.id)] {
            require(is_id(text), field, text, "1 to 40 letters, digits and dashes");
        }
        for (field, text) in [
            ("placed_at", placed_at),
            ("customer.name", &customer.name),
            ("ship_to.street", &ship_to.street),
            ("ship_to.city", &ship_to.city),
            ("ship_to.postal_code", &ship_to.postal_code),
            ("carrier", carrier),
        ] {
            require(is_line(text, 120), field, text, "a line of 1 to 120 characters");
        }
        let (email, country) = (&customer.email, &ship_to.country);
        require(is_line(email, 120) && email.contains('@'), "customer.email", email, "an e-mail address");
        require(CURRENCIES.contains(&&**currency), "currency", currency, "a supported currency");
        require((1..=50).contains(&items.len()), "items", &items.len(), "1 to 50");
        for (index, Item { quantity, unit_price_minor: price, .. }) in items.iter().enumerate() {
            let field = |name| format!("items[{index}].{name}");
            require((1..=999).contains(quantity), &field("quantity"), quantity, "1 to 999");
            require((0..=10_000_000).contains(price), &field("unit_price_minor"), price, "0 to 10000000");
        }
        let is_country = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
        require(is_country, "ship_to.country", country, "two capital letters");
        if let Some(note) = note {
            require(is_line(note, 500), "note", note, "a line of 1 to 500 characters");
        }
        problems
    }
}

fn is_id(text: &str) -> bool {
    is_line(text, 40) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_line(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.chars().count()) && !text.contains(char::is_control)
}
