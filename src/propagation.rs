//! How spans of different services are tied together.

/// How the process span of a delivery relates to the context that the message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TracePolicy {
    /// The process span is a child of the creation context and linked to it: one trace from the producer to the last
    /// consumer. The semantic conventions permit this for single messages, and keep the link.
    #[default]
    Parent,
    /// The process span starts a trace of its own, linked to the creation context: for work long after the fact and for producers that are not trusted.
    Link,
    /// The carried context is not used.
    Ignore,
}
