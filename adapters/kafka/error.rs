//! Maps rdkafka's errors to those of the library.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaConfRes;

use crate::error::{Error, ErrorKind};

/// Converts the error of an operation on the broker. Its source is the client's error.
pub(super) fn from_client(error: KafkaError) -> Error {
    match error {
        // The client's own error repeats the value, which may be a secret whatever its name is: one
        // that is misspelled, for example.
        KafkaError::ClientConfig(result, _, name, _) => {
            let message = match result {
                RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "the kafka client of this build knows no such property",
                _ => "the value of a property of the kafka client is not valid; see librdkafka's CONFIGURATION.md",
            };
            invalid(message).with_context("property", name)
        }
        // It would repeat the value, too.
        KafkaError::Nul(_) => invalid("a name, or the value of a property of the kafka client, contains a NUL byte"),
        KafkaError::ClientCreation(ref reason) => match of_file(reason) {
            Some((message, option)) => invalid(message).with_context("option", option).with_source(error),
            None => invalid("the kafka client cannot be created with this configuration").with_source(error),
        },
        other => match code_of(&other) {
            Some(code) => from_code(code).with_source(other),
            None => Error::new(ErrorKind::Unexpected, "the kafka client failed").with_source(other),
        },
    }
}

/// Returns the words for a file or text of TLS that the client cannot use, and its option.
fn of_file(reason: &str) -> Option<(&'static str, &'static str)> {
    let found = [
        ("ssl.ca.", "no certificate of an authority is in the PEM text", "tls_ca"),
        ("ssl.certificate.", "no certificate is in the PEM text", "tls_cert"),
        ("ssl.key.", "no private key of tls_cert is in the PEM text", "tls_key"),
        ("Private key check failed", "the private key is not that of tls_cert", "tls_key"),
    ];
    let found = found.into_iter().find(|(told, ..)| reason.contains(told))?;
    Some((found.1, found.2))
}

/// Returns the error that the client reports of a connection to a broker, with the reason in words.
/// The code alone does not tell which side refuses the other in the handshake of TLS, or after it.
pub(super) fn of_connection(code: Code, reason: &str) -> Error {
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    let message = if says(&["certificate verify failed", "Failed to verify broker certificate"]) {
        "the certificate of the broker is not accepted: it is of no authority that is trusted (name its file with \
         tls_ca), or for another host than the one connected to, or it has expired"
    } else if says(&[" alert "]) && says(&["certificate", "unknown ca", "access denied", "handshake failure"]) {
        "the broker refuses the handshake: it wants a client certificate of an authority that it trusts, \
         see tls_cert and tls_key"
    } else {
        return from_code(code);
    };
    Error::new(ErrorKind::Unauthenticated, message)
}

/// Returns the code of the client's error. rdkafka itself does not return that of an administrative
/// operation.
pub(super) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// Returns the error for a code.
pub(super) fn from_code(code: Code) -> Error {
    let (kind, message) = match code {
        Code::QueueFull => (ErrorKind::Busy, "too many publishes wait for their confirmation"),
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            (ErrorKind::TooLarge, "the message is larger than the broker accepts")
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopicId => {
            (ErrorKind::NotFound, "the broker has no such topic or partition")
        }
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => (
            ErrorKind::Unauthenticated,
            "the broker does not accept the credentials; check user, password and mechanism",
        ),
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            (ErrorKind::Timeout, "the broker did not answer in time")
        }
        Code::PurgeQueue | Code::PurgeInflight => {
            (ErrorKind::Closed, "the connection was closed before the broker confirmed")
        }
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch
        | Code::AssignmentLost => (ErrorKind::SettlementLost, "the partitions are no longer assigned to this consumer"),
        Code::InvalidRecord
        | Code::InvalidMessage
        | Code::InvalidDifferentRecord
        | Code::PolicyViolation
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidConfig => (ErrorKind::Rejected, "the broker refused the request"),
        code if is_connection(code) => (ErrorKind::Unavailable, "the broker cannot be reached now"),
        code => of_rights(code)
            .map(|message| (ErrorKind::PermissionDenied, message))
            .or_else(|| of_members(code).or_else(|| of_versions(code)))
            .unwrap_or_else(|| of_state(code)),
    };
    Error::new(kind, message)
}

/// The errors of a user without rights: the ACL to grant.
fn of_rights(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TopicAuthorizationFailed => {
            "the user lacks an ACL on the topic: Read to receive, Write to publish, Describe to find it, \
             Create to have it created"
        }
        Code::GroupAuthorizationFailed => {
            "the user lacks an ACL on the group: Read to receive as a member or to move the group; \
             Describe on reader_group to receive without a group"
        }
        Code::ClusterAuthorizationFailed => {
            "the user lacks an ACL on the cluster: Create, or Create on the topic, to have a topic created; \
             to publish, Write on a topic, before Kafka 2.8 IdempotentWrite on the cluster"
        }
        Code::TransactionalIdAuthorizationFailed => "the user lacks an ACL on the transactional id: Write",
        _ => return None,
    })
}

/// The errors of members of a group.
fn of_members(code: Code) -> Option<(ErrorKind, &'static str)> {
    Some(match code {
        Code::InconsistentGroupProtocol | Code::UnknownProtocol => (
            ErrorKind::Conflict,
            "the other members of the group share no assignor with this one, or use the other group protocol; \
             set the option assignor (clients of Java and librdkafka: range) or group_protocol to theirs",
        ),
        Code::UnreleasedInstanceId => {
            (ErrorKind::Conflict, "another member of the group has the same group.instance.id")
        }
        Code::GroupMaxSizeReached => {
            (ErrorKind::Busy, "the group has as many members as the broker permits (group.max.size)")
        }
        Code::InvalidSessionTimeout => {
            (ErrorKind::InvalidConfig, "the broker does not permit this session timeout; set session.timeout.ms")
        }
        Code::PollExceeded => (
            ErrorKind::SettlementLost,
            "the consumer was not polled for max.poll.interval.ms and left its group; it joins again",
        ),
        Code::AutoOffsetReset | Code::OffsetOutOfRange => (
            ErrorKind::NotFound,
            "the position of a partition is gone, and offset_reset=error stops there; move the group by reposition, \
             or choose earliest or latest",
        ),
        _ => return None,
    })
}

/// The errors of what client or broker cannot do.
fn of_versions(code: Code) -> Option<(ErrorKind, &'static str)> {
    Some(match code {
        Code::NotImplemented | Code::UnsupportedCompressionType => {
            (ErrorKind::Unsupported, "this build of the kafka client, or the broker, lacks a codec or another feature")
        }
        Code::BadCompression => (ErrorKind::Unsupported, "a batch of messages cannot be decompressed"),
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedAssignor => (
            ErrorKind::Unsupported,
            "the broker does not support the request; group_protocol=consumer needs Kafka 4.0 or later",
        ),
        _ => return None,
    })
}

/// The errors that pass.
fn of_state(code: Code) -> (ErrorKind, &'static str) {
    match code {
        // A broker that is restarting does not count as one.
        Code::InvalidReplicationFactor => (
            ErrorKind::Unavailable,
            "fewer brokers are running than the topic shall have replicas; wait for them, or set replication",
        ),
        Code::ThrottlingQuotaExceeded => (ErrorKind::Busy, "a quota of the broker is exceeded"),
        Code::SSL => (ErrorKind::Unavailable, "the TLS handshake with the broker failed; check certificates and port"),
        Code::Fatal | Code::OutOfOrderSequenceNumber | Code::UnknownProducerId | Code::InvalidProducerEpoch => {
            (ErrorKind::Unavailable, "the broker has lost track of the client, which is made anew")
        }
        _ => (ErrorKind::Unexpected, "the kafka client reported an error"),
    }
}

/// Returns `true` if the client recovers by itself, by reconnecting or by finding the new leader or
/// coordinator.
pub(super) fn is_connection(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::BrokerDestroy
            | Code::DestroyBroker
            | Code::Resolve
            | Code::NodeUpdate
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::BrokerNotAvailable
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotController
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::KafkaStorageError
            | Code::ISRInsufficient
    )
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::BaseConsumer;

    use super::*;

    #[test]
    fn no_error_repeats_the_value_of_a_property() {
        for (name, secret) in [("sasl.password", "hunter2\0"), ("sasl.pasword", "hunter2"), ("linger.ms", "hunter2")] {
            let mut config = ClientConfig::new();
            config.set(name, secret);
            let error = from_client(config.create::<BaseConsumer>().map(drop).unwrap_err());
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
    }

    /// In the words of different releases of OpenSSL.
    #[test]
    fn refusals_in_the_handshake_are_told_from_other_failures() {
        for (code, reason, kind) in [
            (Code::SSL, "SSL handshake failed: certificate verify failed: broker", ErrorKind::Unauthenticated),
            (Code::SSL, "SSL handshake failed: sslv3 alert handshake failure", ErrorKind::Unauthenticated),
            (Code::SSL, "SSL handshake failed: ssl/tls alert bad certificate", ErrorKind::Unauthenticated),
            (Code::BrokerTransportFailure, "Receive failed: tlsv1 alert unknown ca", ErrorKind::Unauthenticated),
            (Code::SSL, "SSL handshake failed: tlsv1 alert protocol version", ErrorKind::Unavailable),
            (Code::SSL, "SSL handshake failed: wrong version number", ErrorKind::Unavailable),
            (Code::BrokerTransportFailure, "Disconnected", ErrorKind::Unavailable),
        ] {
            assert_eq!(of_connection(code, reason).kind(), kind, "{reason}");
        }
    }

    #[test]
    fn codes_that_operators_meet_have_a_kind() {
        for (code, kind) in [
            (Code::SSL, ErrorKind::Unavailable),
            (Code::PollExceeded, ErrorKind::SettlementLost),
            (Code::Fatal, ErrorKind::Unavailable),
            (Code::InconsistentGroupProtocol, ErrorKind::Conflict),
            (Code::UnknownProtocol, ErrorKind::Conflict),
            (Code::UnreleasedInstanceId, ErrorKind::Conflict),
            (Code::GroupMaxSizeReached, ErrorKind::Busy),
            (Code::TransactionalIdAuthorizationFailed, ErrorKind::PermissionDenied),
            (Code::ThrottlingQuotaExceeded, ErrorKind::Busy),
            (Code::OutOfOrderSequenceNumber, ErrorKind::Unavailable),
            (Code::NotImplemented, ErrorKind::Unsupported),
            (Code::BadCompression, ErrorKind::Unsupported),
            (Code::UnsupportedCompressionType, ErrorKind::Unsupported),
            (Code::UnsupportedVersion, ErrorKind::Unsupported),
            (Code::AutoOffsetReset, ErrorKind::NotFound),
            (Code::InvalidReplicationFactor, ErrorKind::Unavailable),
        ] {
            assert_eq!(from_code(code).kind(), kind, "{code}");
        }
    }
}
