"""The Kafka client's errors in our tree."""

from __future__ import annotations

import ssl

import pytest
from aiokafka import errors as kafka

from cluster.errors import OutcomeUnknown, Rejected, Unavailable
from cluster.stores.kafka_errors import BrokerRefused, check_code, translate


@pytest.mark.parametrize(
    ("error", "sent", "expected", "told"),
    [
        (kafka.KafkaConnectionError("gone"), False, Unavailable, "bootstrap"),
        (kafka.KafkaConnectionError("gone"), True, OutcomeUnknown, "same again"),
        (kafka.RequestTimedOutError(), True, OutcomeUnknown, "same again"),
        (TimeoutError(), False, Unavailable, "TimeoutError"),
        (ConnectionRefusedError(111, "refused"), False, Unavailable, "refused"),
        (kafka.SaslAuthenticationFailed("no"), True, Unavailable, "password"),
        (kafka.UnsupportedSaslMechanismError("no"), False, Unavailable, "mechanism"),
        (kafka.TopicAuthorizationFailedError("t"), True, Rejected, "grant"),
        (kafka.ClusterAuthorizationFailedError("c"), False, Rejected, "grant"),
        (kafka.IncompatibleBrokerVersion("old"), False, Rejected, "newer"),
        (kafka.InvalidReplicationFactorError("3"), False, Rejected, "settings"),
        (kafka.KafkaStorageError(), True, Unavailable, "disk"),
        (ssl.SSLCertVerificationError(1, "no"), False, Rejected, "ca_file"),
        (BrokerRefused(78), False, Unavailable, "78"),
    ],
)
def test_errors_of_the_client_become_ours(error: Exception, sent: bool, expected: type[Exception], told: str) -> None:
    meant = translate(error, sent)
    assert type(meant) is expected
    assert told in str(meant)


def test_codes_become_the_clients_errors() -> None:
    check_code(0)
    with pytest.raises(kafka.NotLeaderForPartitionError):
        check_code(6)
    with pytest.raises(kafka.PolicyViolationError, match="at most 2"):
        check_code(44, "at most 2")
    with pytest.raises(BrokerRefused, match="100"):
        check_code(100)
