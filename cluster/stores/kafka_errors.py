"""Translates the errors of the Kafka client, once, for every store that speaks to a Kafka."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from aiokafka import errors as kafka

from cluster.errors import IntelGraphError, OutcomeUnknown, Rejected, Unavailable


class Named(NamedTuple):
    """How messages name a Kafka cluster.

    Args:
        what: what it is to us.
        settings: where the configuration says how it is reached.
    """

    what: str
    settings: str


LOG = Named("the event log (Kafka)", "log.kafka")
WHAT = LOG.what

CAUGHT = (kafka.KafkaError, OSError, TimeoutError)
"""What the client raises: its own errors, and those of sockets, TLS and clocks."""

OFFSET_OUT_OF_RANGE, CORRUPT_MESSAGE, UNKNOWN_TOPIC_OR_PARTITION = 1, 2, 3
UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID = 100, 103

OTHER_TOPIC = frozenset({UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID})
"""Codes that say: this broker does not know that topic. It may be gone, or not have reached the broker yet."""

MOVED = frozenset({5, 6, 7, 8, 9, 13, 74, 75, 76, 78}) | OTHER_TOPIC
"""Codes of a partition whose leader changes or has just changed: look it up again, then ask again."""

DAMAGED = frozenset({-1, CORRUPT_MESSAGE, 56})
"""Codes of a partition that its leader cannot read: an error that it has no code for, a damaged batch, its disk."""

TOO_LARGE, TOO_FEW_REPLICAS = frozenset({10, 18}), frozenset({19, 20})
NEW_PRODUCER = frozenset({45, 47, 59})
"""Codes that refuse a batch because its producer is unknown, or its sequence numbers do not follow each other."""
NOT_NOW = 32
"""The batch's time is refused: so is whoever appends while a generation of the log is filled."""
NOT_APPENDED = frozenset({3, 5, 6, 8, 9, 13, 19, 74, 75, 100, 103})
"""Codes after which a batch has certainly not been appended, and may be when it is sent again."""

_REFUSED = (
    kafka.SaslAuthenticationFailed,
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)
_FORBIDDEN = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)
_TOO_OLD = (kafka.IncompatibleBrokerVersion, kafka.UnsupportedVersionError)
_UNFIT = (
    kafka.InvalidConfigurationError,
    kafka.InvalidReplicationFactorError,
    kafka.InvalidTopicError,
    kafka.InvalidRequestError,
    kafka.PolicyViolationError,
)


class BrokerRefused(kafka.KafkaError):  # type: ignore[misc]
    """A broker answered with an error code.

    Args:
        code: of the protocol; the client has no class for the newer ones.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"error code {code}")
        self.code = code


def check_code(code: int, said: str | None = None) -> None:
    """Nothing for 0; raises the client's error of a code otherwise.

    Args:
        said: the broker's own words.
    """
    if code == 0:
        return
    error = kafka.for_code(code)
    if error is kafka.UnknownError:
        raise BrokerRefused(code)
    raise error(said or error.message)


def translate(error: BaseException, sent: bool = False, named: Named = LOG) -> IntelGraphError:
    """The error of our tree for one of the client's.

    Args:
        sent: the request changes something and may have reached the broker.
        named: the cluster that it came from.
    """
    what, settings = named
    if isinstance(error, _REFUSED):
        refused = f"{what} refuses {settings}.user, its password or {settings}.mechanism: {_said(error)}"
        return Unavailable(refused, 5.0)
    if isinstance(error, _FORBIDDEN):
        return Rejected(
            f"{what} forbids it to {settings}.user: grant it what docs/operations.md lists ({_said(error)})"
        )
    if isinstance(error, _TOO_OLD):
        return Rejected(f"{what} needs brokers that know topic ids, Kafka 3.1 or newer ({_said(error)})")
    if isinstance(error, _UNFIT):
        return Rejected(f"{what} refuses what it is asked for by the settings under {settings}: {_said(error)}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Rejected(f"{what}'s certificate is not one that {settings}.ca_file vouches for ({_said(error)})")
    if isinstance(error, kafka.KafkaStorageError):
        return Unavailable(f"{what} cannot use its disk: free space, restart the broker", 5.0)
    reason = f"{what} does not answer ({_said(error)})"
    if sent:
        return OutcomeUnknown(f"{reason}; the request may have taken effect: send the same again")
    return Unavailable(f"{reason}; see that its brokers run and that {settings}.bootstrap names them")


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
