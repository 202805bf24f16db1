//! What is measured of a client library of another language.

use traced_broker::verify::FindingKind;

use crate::program::Language;
use crate::support::Kind;

/// A client library as a program of ours uses it, with or without instrumentation.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) language: Language,
    /// What the program calls it.
    pub(crate) name: &'static str,
    /// What the page calls it.
    pub(crate) title: &'static str,
    pub(crate) broker: Kind,
    /// Of our own URL.
    pub(crate) options: &'static str,
    /// Theirs to ours.
    pub(crate) sends: Measured,
    /// Ours to theirs; nothing where only sending is different from another library.
    pub(crate) receives: Option<Measured>,
}

/// What is found in one direction.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tie: Tie,
    /// Their spans, from the first to the last, as `name (kind)` with the topic `orders`. Sent, that is from the request to the
    /// parent of our process span. Received, it is from below our send span, or from the root if it is not the parent, to the work.
    pub(crate) chain: &'static [&'static str],
    /// Their span whose context is in the headers that the handler sees, where it is not the one that was sent.
    pub(crate) rewritten: Option<&'static str>,
    /// Whether the work has the baggage of the request.
    pub(crate) keeps_baggage: bool,
    /// What `verify` has to say against it.
    pub(crate) findings: &'static [FindingKind],
    /// The headers of the trace: sent, as they are on the wire, received, as the library gives them out.
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// What the receiving span has to do with the sending one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// It is a descendant: one trace from the request to the work.
    Child,
    /// It is in the trace of what sent it, but the request is in another one.
    Torn,
    /// It is in a trace of its own, with a link.
    Link,
    /// It is in a trace of its own.
    Nothing,
    /// There is none: the program fails with these words when it reads the headers.
    Fails(&'static str),
}

/// The direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    TheirsToOurs,
    OursToTheirs,
}

impl Library {
    /// Core NATS keeps nothing, and knows groups only while they have members.
    pub(crate) fn is_core(&self) -> bool {
        self.options.contains("mode=core")
    }

    /// Whether we spell the names of headers as HTTP in Go does.
    pub(crate) fn is_canonical(&self) -> bool {
        self.options.contains("header_names=canonical")
    }

    /// The tests that there have to be.
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
    /// How many traces one message makes.
    pub(crate) fn traces(&self) -> usize {
        if self.tie == Tie::Child { 1 } else { 2 }
    }

    /// In the words of the page.
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

    /// In the words of the page: the names of one type together, in order.
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
    /// In the words of the page.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TheirsToOurs => "theirs → ours",
            Self::OursToTheirs => "ours → theirs",
        }
    }
}
