//! Maps rdkafka's errors to those of the library.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::{Error, ErrorKind};

/// The properties whose values no error may repeat.
const SECRET_PROPERTIES: [&str; 7] = [
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "ssl.truststore.password",
];

/// Converts the error of an operation on the broker. Its source is the client's error.
pub(super) fn from_client(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, _, name, _) if SECRET_PROPERTIES.contains(&name.as_str()) => {
            invalid("a property of the kafka client is not valid").with_context("property", name)
        }
        KafkaError::ClientConfig(_, _, ref name, _) => {
            invalid("a property of the kafka client is not valid").with_context("property", name).with_source(error)
        }
        KafkaError::ClientCreation(_) => {
            invalid("the kafka client cannot be created with this configuration").with_source(error)
        }
        other => match code_of(&other) {
            Some(code) => from_code(code).with_source(other),
            None => Error::new(ErrorKind::Unexpected, "the kafka client failed").with_source(other),
        },
    }
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
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            (ErrorKind::PermissionDenied, "the broker does not permit this user to do that")
        }
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
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig => (ErrorKind::Rejected, "the broker refused the request"),
        code if is_connection(code) => (ErrorKind::Unavailable, "the broker cannot be reached now"),
        _ => (ErrorKind::Unexpected, "the kafka client reported an error"),
    };
    Error::new(kind, message)
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
    fn no_error_repeats_a_secret() {
        let secret = "hunter2\0";
        let mut config = ClientConfig::new();
        config.set("sasl.password", secret);
        let created = config.create::<BaseConsumer>().map(drop);
        let error = from_client(created.unwrap_err());
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");

        let native = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "bad value hunter2".to_owned(),
            "ssl.key.password".to_owned(),
            "hunter2".to_owned(),
        );
        let error = from_client(native);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }
}
