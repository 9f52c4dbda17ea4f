"""What the answers to an append mean, without a broker."""

from __future__ import annotations

import pytest

from cluster.errors import Corrupt, IntelGraphError, OutcomeUnknown, Rejected, Unavailable
from cluster.stores.kafka_append import Producer, batches, refusal, worst
from cluster.stores.kafka_entry import Message


@pytest.mark.parametrize(
    ("code", "expected", "maybe", "final"),
    [
        (3, Unavailable, False, False),  # unknown topic
        (6, Unavailable, False, False),  # not the leader
        (100, Unavailable, False, False),  # unknown topic id
        (19, Unavailable, False, False),  # not enough replicas, not appended
        (20, Unavailable, True, False),  # not enough replicas after it was appended
        (7, Unavailable, True, False),  # timed out waiting for the replicas
        (56, Unavailable, True, False),  # the disk
        (46, Unavailable, True, False),  # a sequence number that was there already
        (0, Unavailable, True, True),  # no error, no offset
        (10, Rejected, False, True),
        (29, Rejected, False, True),  # forbidden
        (999, Unavailable, True, False),
    ],
)
def test_codes_say_whether_a_batch_may_be_there(
    code: int, expected: type[IntelGraphError], maybe: bool, final: bool
) -> None:
    failed = refusal(code, Producer(id=5))
    assert (type(failed.error), failed.maybe, failed.final) == (expected, maybe, final)


@pytest.mark.parametrize("code", [45, 47, 59])
def test_a_producer_that_the_broker_does_not_know_begins_anew(code: int) -> None:
    producer = Producer(id=5, sequence=9)
    assert not refusal(code, producer).maybe
    assert (producer.id, producer.sequence) == (None, 0)


def test_batches_keep_order_and_size() -> None:
    messages = [Message(bytes(size), []) for size in (10, 300, 300, 5000, 10)]
    assert [[len(message.value) for message in batch] for batch in batches(messages, 1000)] == [
        [10, 300, 300],
        [5000],
        [10],
    ]
    assert list(batches([], 1000)) == []


def test_one_error_of_several_is_the_one_to_act_on() -> None:
    away, unknown = Unavailable("away"), OutcomeUnknown("unknown")
    large, corrupt, bug = Rejected("large"), Corrupt("corrupt"), KeyError("bug")
    assert worst([away, unknown, large, corrupt, bug], False) is bug
    assert worst([away, unknown, large, corrupt], False) is corrupt
    assert worst([away, large, unknown], False) is unknown
    assert worst([away, large], False) is large
    assert worst([away, away], False) is away
    assert isinstance(worst([away], True), OutcomeUnknown)
