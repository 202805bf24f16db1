//! The changes for a program that switches brokers.

use std::borrow::Cow;
use std::fmt;

use super::{Capabilities, Question};

/// Compares two brokers and returns the changes for a program that switches from one to the other.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// use traced_broker::capability::{Question, compare};
/// use traced_broker::{Capabilities, TracedBroker, connect};
///
/// let today = connect("memory://").await?;
/// # let elsewhere = { let mut other = Capabilities::new(); other.backlog = false; other };
/// // let tomorrow = connect("amqp://broker.example").await?;
/// // let elsewhere = tomorrow.capabilities().clone();
/// let comparison = compare(today.capabilities(), &elsewhere).between("memory", "RabbitMQ");
/// println!("{comparison}");
/// assert!(comparison.lost().any(|change| change.question == Question::Backlog));
/// // A program whose groups exist from the start is not affected:
/// let ours = comparison.for_use(&[Question::Confirm, Question::Groups, Question::Retry]);
/// assert!(ours.changes().is_empty());
/// # Ok(()) }
/// ```
pub fn compare(from: &Capabilities, to: &Capabilities) -> Comparison {
    let changes = Question::ALL.into_iter().filter_map(|question| {
        let (before, after) = (question.answer(from), question.answer(to));
        if before.words == after.words {
            return None;
        }
        let effect = match (before.rank, after.rank) {
            (Some(before), Some(after)) if after < before => Effect::Lost,
            (Some(before), Some(after)) if after > before => Effect::Gained,
            _ => Effect::Different,
        };
        Some(Change { question, from: before.words, to: after.words, effect })
    });
    Comparison { from: "before".into(), to: "after".into(), changes: changes.collect() }
}

/// The changes between two brokers; its `Display` is a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    from: Cow<'static, str>,
    to: Cow<'static, str>,
    changes: Vec<Change>,
}

/// A single change between two brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The question whose answer changes.
    pub question: Question,
    /// The answer of the old broker.
    pub from: Cow<'static, str>,
    /// The answer of the new broker.
    pub to: Cow<'static, str>,
    /// The effect on a program.
    pub effect: Effect,
}

/// The effect of a change on a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// A feature or guarantee is no longer available.
    Lost,
    /// A feature or guarantee becomes available.
    Gained,
    /// The behaviour differs, and is neither better nor worse.
    Different,
}

impl Change {
    /// Returns advice on the change; empty for gains.
    pub fn advice(&self) -> &'static str {
        if self.effect == Effect::Gained { "" } else { self.question.advice() }
    }
}

impl Comparison {
    /// Sets the names of the two brokers for the table.
    #[must_use]
    pub fn between(mut self, from: impl Into<Cow<'static, str>>, to: impl Into<Cow<'static, str>>) -> Self {
        (self.from, self.to) = (from.into(), to.into());
        self
    }

    /// Keeps only the changes that affect a program that relies on these features.
    #[must_use]
    pub fn for_use(mut self, relied_on: &[Question]) -> Self {
        self.changes.retain(|change| relied_on.contains(&change.question));
        self
    }

    /// Returns all changes, in the order of [`Question::ALL`].
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the features and guarantees that are lost.
    pub fn lost(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.effect == Effect::Lost)
    }

    fn rows(&self) -> impl Iterator<Item = [&str; 5]> {
        let header = ["", "", &*self.from, &*self.to, "what to do"];
        let rows = self.changes.iter().map(|change| {
            let sign = match change.effect {
                Effect::Lost => "-",
                Effect::Gained => "+",
                Effect::Different => "~",
            };
            [sign, change.question.as_str(), &*change.from, &*change.to, change.advice()]
        });
        std::iter::once(header).chain(rows)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return write!(f, "nothing changes between {} and {}", self.from, self.to);
        }
        let width = |column: usize| self.rows().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [1, width(1), width(2), width(3)];
        for (index, row) in self.rows().enumerate() {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            let line: Vec<String> = cells.chain([row[4].to_owned()]).collect();
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::capability::{Confirm, Order, Redelivery};

    fn modest() -> Capabilities {
        Capabilities {
            confirm: Confirm::Broker,
            retry: Redelivery::Held,
            order: Order::Partition,
            max_payload: Some(1 << 20),
            backlog: false,
            ..Capabilities::new()
        }
    }

    #[test]
    fn tells_what_is_lost_gained_and_different() {
        let comparison = compare(&Capabilities::new(), &modest());
        let told: Vec<(Question, Effect)> =
            comparison.changes().iter().map(|change| (change.question, change.effect)).collect();
        let expected = [
            (Question::Confirm, Effect::Gained),
            (Question::Backlog, Effect::Lost),
            (Question::Retry, Effect::Lost),
            (Question::Order, Effect::Different),
            (Question::Size, Effect::Lost),
        ];
        assert_eq!(told, expected);
        let back = compare(&modest(), &Capabilities::new());
        assert_eq!(back.lost().map(|change| change.question).collect::<Vec<_>>(), [Question::Confirm]);
    }

    #[test]
    fn is_a_table_of_aligned_columns() {
        let comparison = compare(&Capabilities::new(), &modest()).between("memory", "elsewhere");
        let table = comparison.for_use(&[Question::Backlog, Question::Confirm, Question::Size]).to_string();
        let expected = [
            "                            memory                elsewhere           what to do",
            "+  a confirmed message is   kept in this process  kept by the broker",
            "-  backlog for a new group  yes                   no                  subscribe every group before the first publish",
            "-  largest payload          not limited           1 MiB               larger payloads are refused with both sizes",
        ];
        assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_same_broker_is_no_change() {
        let comparison = compare(&modest(), &modest());
        assert_eq!(comparison.to_string(), "nothing changes between before and after");
    }

    #[test]
    fn every_question_has_words_and_advice() {
        for question in Question::ALL {
            assert!(!question.as_str().is_empty());
            let universal = matches!(question, Question::Batches | Question::RequestReply);
            assert_eq!(question.advice().is_empty(), universal, "{question:?}");
        }
    }
}
