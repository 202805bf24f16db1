//! Measured results of a client library of another language.

use traced_broker::verify::FindingKind;

use crate::program::Language;
use crate::support::Kind;

/// A client library as a program of these tests uses it, with or without instrumentation.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) language: Language,
    /// The program's name for it.
    pub(crate) name: &'static str,
    /// The page's name for it.
    pub(crate) title: &'static str,
    pub(crate) broker: Kind,
    /// Options of our URL.
    pub(crate) options: &'static str,
    /// The result of theirs to ours.
    pub(crate) sends: Measured,
    /// The result of ours to theirs; `None` if only sending differs from another library.
    pub(crate) receives: Option<Measured>,
}

/// The result in one direction.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tie: Tie,
    /// Their spans, from the first to the last, as `name (kind)` with the topic `orders`. When they
    /// send: from the request to the parent of our process span. When they receive: to the work,
    /// from below our send span, or from the root if our send span is not the parent.
    pub(crate) chain: &'static [&'static str],
    /// The span whose context the handler sees in the headers, if it is not that of the sent
    /// message.
    pub(crate) rewritten: Option<&'static str>,
    /// `true` if the work has the baggage of the request.
    pub(crate) keeps_baggage: bool,
    /// The findings of `verify`.
    pub(crate) findings: &'static [FindingKind],
    /// The trace headers: for sending, as they are on the wire; for receiving, as the library
    /// returns them.
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// The relation of the receiving span to the sending one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// A descendant: one trace from the request to the work.
    Child,
    /// In the sender's trace, but the request is in another one.
    Torn,
    /// In a separate trace, with a link.
    Link,
    /// In a separate trace, without a link.
    Nothing,
    /// No receiving span: the program fails with this message when it reads the headers.
    Fails(&'static str),
}

/// The direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    TheirsToOurs,
    OursToTheirs,
}

impl Library {
    /// Returns `true` for core NATS, which stores no messages, and knows groups only while they
    /// have members.
    pub(crate) fn is_core(&self) -> bool {
        self.options.contains("mode=core")
    }

    /// Returns `true` if we write header names as Go's HTTP library does.
    pub(crate) fn is_canonical(&self) -> bool {
        self.options.contains("header_names=canonical")
    }

    /// Returns the tests that must exist.
    pub(crate) fn directions(&self) -> &'static [&'static str] {
        match self.receives.as_ref().map(|receives| receives.tie) {
            None => &["theirs_to_ours"],
            Some(Tie::Fails(_)) => &["theirs_to_ours", "ours_to_theirs"],
            Some(_) => &["theirs_to_ours", "ours_to_theirs", "theirs_to_ours_to_theirs"],
        }
    }

    pub(crate) fn measured(&self) -> impl Iterator<Item = (Direction, &Measured)> {
        let receives = self.receives.iter().map(|measured| (Direction::OursToTheirs, measured));
        std::iter::once((Direction::TheirsToOurs, &self.sends)).chain(receives)
    }
}

impl Measured {
    /// Returns the number of traces that one message creates.
    pub(crate) fn traces(&self) -> usize {
        if self.tie == Tie::Child { 1 } else { 2 }
    }

    /// Returns the verdict in the page's words.
    pub(crate) fn verdict(&self) -> String {
        let mut words = match self.tie {
            Tie::Child => "yes",
            Tie::Torn => "no: the request is in another trace",
            Tie::Link => "in part: two traces, with a link",
            Tie::Nothing => "no: two traces",
            Tie::Fails(words) => return format!("no: the handler fails with `{words}`"),
        }
        .to_owned();
        let mut more: Vec<&str> = self.findings.iter().map(|finding| finding.as_str()).collect();
        if self.chain.windows(2).any(|pair| pair[0] == pair[1]) {
            more.push("two spans of one send");
        }
        if self.rewritten.is_some() {
            more.push("headers rewritten before the handler sees them");
        }
        if self.tie == Tie::Link && !self.keeps_baggage {
            more.push("no baggage");
        }
        if !more.is_empty() {
            words = format!("{words}; {}", more.join(", "));
        }
        words
    }

    /// Returns the headers in the page's words: the names of one type together, in order.
    pub(crate) fn wire(&self) -> String {
        let mut forms: Vec<(&str, Vec<String>)> = Vec::new();
        for (name, form) in self.headers {
            match forms.iter_mut().find(|(known, _)| known == form) {
                Some((_, names)) => names.push(format!("`{name}`")),
                None => forms.push((form, vec![format!("`{name}`")])),
            }
        }
        if forms.is_empty() {
            return "none".to_owned();
        }
        let forms: Vec<String> = forms.iter().map(|(form, names)| format!("{} ({form})", names.join(", "))).collect();
        forms.join(", ")
    }
}

impl Direction {
    /// Returns the direction in the page's words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TheirsToOurs => "theirs → ours",
            Self::OursToTheirs => "ours → theirs",
        }
    }
}
