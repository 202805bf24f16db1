//! The decision about a delivery, and the end that it leads to.

use std::time::Duration;

use super::dead_letter::Reason;
use super::settlement::Settlement;
use super::verdicts::Remembered;
use crate::error::Error;
use crate::message::{HandlerError, Verdict};

/// A decision about a delivery.
#[derive(Debug)]
pub(crate) enum Decision {
    Ack,
    Retry(Duration),
    Reject { text: String, error_type: Option<&'static str> },
}

impl Decision {
    /// Returns the decision that follows from the verdict on this attempt; `None` is the verdict on
    /// a success.
    pub(super) fn of(verdict: Option<Verdict>, error: Option<&HandlerError>, attempt: u32) -> Self {
        match (verdict, error) {
            (None, _) => Self::Ack,
            (Some(Verdict::Retry(delay)), _) => Self::Retry(delay),
            (Some(Verdict::Reject), None) => Self::Reject { text: String::new(), error_type: None },
            (Some(Verdict::Reject), Some(error)) => {
                let text = match error.verdict() {
                    Verdict::Retry(_) if attempt > 1 => {
                        format!("given up after {attempt} attempts: {}", error.describe())
                    }
                    _ => error.describe(),
                };
                Self::Reject { text, error_type: Some(error.error_type()) }
            }
        }
    }

    /// Returns what is to be remembered if the decision cannot be carried out; `None` for a retry,
    /// which happens by itself.
    pub(super) fn remembered(&self) -> Option<Remembered> {
        match self {
            Self::Ack => Some(Remembered::Done),
            Self::Retry(_) => None,
            Self::Reject { text, error_type } => {
                Some(Remembered::Rejected { reason: text.clone(), error_type: *error_type })
            }
        }
    }

    /// Returns the reason for the dead letter.
    pub(super) fn reason(&self) -> Reason<'_> {
        match self {
            Self::Ack | Self::Retry(_) => Reason { text: "", error_type: None },
            Self::Reject { text, error_type } => Reason { text, error_type: *error_type },
        }
    }
}

impl From<Remembered> for Decision {
    fn from(remembered: Remembered) -> Self {
        match remembered {
            Remembered::Done => Self::Ack,
            Remembered::Rejected { reason: text, error_type } => Self::Reject { text, error_type },
        }
    }
}

/// The outcome of a decision that was carried out.
#[derive(Debug)]
pub(super) enum Outcome {
    Settled(Settlement),
    /// Unsettled, and to be handed out again after the delay.
    Open(Duration),
    /// Unsettled: its dead letter can never be published, for this reason.
    Unburied(Error),
}
