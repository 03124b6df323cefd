"""Maps the client library's errors to the errors of the ports. No other module does this."""

from __future__ import annotations

from aiokafka import errors as kafka

from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable, TransientError

_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError, kafka.RecordTooLargeError)
_REFUSED = (*_TOO_LARGE, kafka.InvalidTimestampError, kafka.PolicyViolationError)
_MISSING = (kafka.UnknownTopicOrPartitionError, kafka.InvalidTopicError)
_FORBIDDEN = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
)
_INVALID = (
    kafka.InvalidPartitionsError,
    kafka.InvalidReplicationFactorError,
    kafka.InvalidConfigurationError,
    kafka.InvalidRequestError,
    kafka.UnsupportedVersionError,
    kafka.UnrecognizedBrokerVersion,
    kafka.IncompatibleBrokerVersion,
)
_RESTARTABLE = (kafka.OutOfOrderSequenceNumber, kafka.UnknownProducerId, kafka.InvalidProducerEpoch)


def mapped(error: BaseException, subject: str) -> CrossfadeError:
    """Return the port error for an error of the client library or a socket; `subject` is its topic or address."""
    detail = str(error) or type(error).__name__
    if isinstance(error, _REFUSED):
        return Refused(f"{subject}: {detail}")
    if isinstance(error, _MISSING):
        return Misconfigured(f"{subject}: the topic does not exist; `crossfade topics apply` creates it")
    if isinstance(error, _FORBIDDEN):
        return Misconfigured(f"{subject}: the brokers do not allow it: {detail}")
    if isinstance(error, _INVALID):
        return Misconfigured(f"{subject}: {detail}")
    if isinstance(error, _RESTARTABLE):
        return TransientError(f"{subject}: the brokers lost the producer's sequence: {detail}")
    return StoreUnavailable(f"{subject}: the brokers do not answer: {detail}")
