"""Actors over hosts: after some moves every host has as many as every other, or one more, and then nothing moves."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from actors.spreading import move_of

HOSTS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=4), st.sampled_from("abcdefg"), max_size=12), HOSTS)
def test_each_move_makes_it_more_even_until_it_is(homes: dict[str, str], hosts: list[str]) -> None:
    elsewhere = {actor: host for actor, host in homes.items() if host not in hosts}
    for _ in range(len(homes) + 1):
        move = move_of(homes, hosts)
        if move is None:
            break
        before = Counter(homes.values())
        assert before[homes[move.actor]] >= before[move.to] + 2
        homes[move.actor] = move.to
    assert move_of(homes, hosts) is None
    number = Counter(dict.fromkeys(hosts, 0) | Counter(host for host in homes.values() if host in hosts))
    assert max(number.values()) - min(number.values()) < 2
    assert elsewhere == {actor: host for actor, host in homes.items() if host not in hosts}, "they are being started"


def test_one_goes_where_there_is_none() -> None:
    assert move_of({"w-0": "head", "w-1": "head"}, ["head", "worker"]) == ("w-1", "worker")
    assert move_of({"w-0": "head"}, ["head", "worker"]) is None
    assert move_of({}, ["head"]) is None
