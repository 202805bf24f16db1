//! What a customer orders, as it is posted and as it travels on the topic `orders`.

use serde::{Deserialize, Serialize};

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// The shop's own number, such as `ORD-48211`.
    pub(crate) id: String,
    /// When it was placed, in UTC: `2026-11-23T06:01:37Z`.
    pub(crate) placed_at: String,
    pub(crate) customer: Customer,
    /// ISO 4217.
    pub(crate) currency: String,
    pub(crate) items: Vec<Item>,
    pub(crate) ship_to: Address,
    /// Who is to bring it.
    pub(crate) carrier: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Who orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Customer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// What, how many, and for how much each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    pub(crate) sku: String,
    pub(crate) quantity: i64,
    /// In the smallest unit of the currency: cents, pence, yen.
    pub(crate) unit_price_minor: i64,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Address {
    pub(crate) street: String,
    pub(crate) city: String,
    pub(crate) postal_code: String,
    /// ISO 3166-1 alpha-2.
    pub(crate) country: String,
}

impl Order {
    /// What all of it costs, in the smallest unit of the currency.
    pub(crate) fn total_minor(&self) -> i64 {
        self.items.iter().map(|item| item.quantity.saturating_mul(item.unit_price_minor)).fold(0, i64::saturating_add)
    }
}
