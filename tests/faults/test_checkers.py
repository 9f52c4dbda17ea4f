"""The checkers themselves: histories that are right pass, and each kind of anomaly is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults.append_checker import Anomaly, ListRead, VersionRead, check_lists, check_versions
from tests.faults.operations import Ended, Operation
from tests.faults.producer import History, events
from tests.faults.set_checker import check_set


def added(*values: str, at: int = 1, ended: Ended = Ended.OK, until: int | None = None) -> Operation[str]:
    return Operation("p", values, at, (until or at + 1) if ended is not Ended.INFO else 0, ended)


RIGHT = [
    added("a", "b", at=1),
    added("c", at=3, ended=Ended.INFO),
    added("c", at=4, ended=Ended.FAIL),
    added("d", at=6, ended=Ended.INFO),
]


class TestSet:
    @pytest.mark.parametrize("read", ["ab", "abc", "abcd", "dba"])
    def test_what_is_unknown_may_be_there_or_not(self, read: str) -> None:
        found = check_set(RIGHT, read)
        assert found.holds
        assert found.recovered == set(read) - {"a", "b"}
        assert (found.attempted, found.acknowledged, found.read) == (4, 2, len(read))

    @pytest.mark.parametrize(
        ("read", "kind", "elements"),
        [("bc", "lost", {"a"}), ("abz", "unexpected", {"z"}), ("abb", "duplicated", {"b"}), ("", "lost", {"a", "b"})],
    )
    def test_one_anomaly_of_each_kind(self, read: str, kind: str, elements: set[str]) -> None:
        found = check_set(RIGHT, read)
        assert not found.holds
        assert set(getattr(found, kind)) == elements
        others = {"lost", "unexpected", "duplicated"} - {kind}
        assert not any(getattr(found, other) for other in others)

    def test_what_failed_must_not_be_there(self) -> None:
        assert check_set([added("a", ended=Ended.FAIL)], "a").unexpected == {"a"}
        assert check_set([added("a", ended=Ended.FAIL), added("a", at=3)], "a").holds

    def test_where_repetitions_do_no_harm(self) -> None:
        assert check_set(RIGHT, "aabb", once=False).holds

    def test_what_is_told_names_the_operations(self) -> None:
        told = check_set(RIGHT, "bcc").told(RIGHT, ", seed 3")
        assert told.splitlines() == [
            "1 lost, 1 doubled, 0 unexpected, seed 3",
            "  lost: 'a' (#1 by p: ok at #2)",
            "  doubled: 'c' (#3 by p: info; #4 by p: fail at #5)",
        ]


def appended(values: str, at: int, ended: Ended = Ended.OK) -> Operation[tuple[str, str]]:
    return Operation("p", [("k", v) for v in values], at, at + 1 if ended is not Ended.INFO else 0, ended)


APPENDS = [appended("a", 1), appended("b", 3, Ended.INFO), appended("c", 5), appended("x", 7, Ended.FAIL)]


def lists(*texts: str, observer: str = "") -> list[ListRead[str, str]]:
    return [ListRead("k", tuple(text), observer) for text in texts]


def kinds(found: Sequence[Anomaly]) -> set[str]:
    return {anomaly.kind for anomaly in found}


class TestLists:
    @pytest.mark.parametrize("final", ["ac", "abc", "acb"])
    def test_what_is_unknown_may_be_there_at_any_place_from_then_on(self, final: str) -> None:
        reads = lists("", *(final[:n] for n in range(1, len(final) + 1)), final)
        assert check_lists(APPENDS, reads, {"k": final}) == []

    @pytest.mark.parametrize(
        ("final", "kind"),
        [
            ("acz", "unsent"),
            ("acx", "unsent"),
            ("acc", "doubled"),
            ("ca", "reordered"),
            ("bac", "reordered"),
            ("a", "lost"),
        ],
    )
    def test_one_anomaly_of_each_kind_in_the_end(self, final: str, kind: str) -> None:
        assert kinds(check_lists(APPENDS, [], {"k": final})) == {kind}

    @pytest.mark.parametrize(
        ("reads", "kind"), [(lists("b"), "order"), (lists("ac", "ab"), "order"), (lists("ab", "a"), "went back")]
    )
    def test_one_anomaly_of_each_kind_on_the_way(self, reads: list[ListRead[str, str]], kind: str) -> None:
        assert kinds(check_lists(APPENDS, reads, {"k": "abc"})) == {kind}

    def test_another_observer_may_be_behind(self) -> None:
        assert check_lists(APPENDS, lists("abc") + lists("a", observer="slow"), {"k": "abc"}) == []

    def test_an_append_that_came_again_counts_from_its_first_time(self) -> None:
        again = [appended("a", 1), appended("b", 3), appended("a", 5)]
        assert check_lists(again, [], {"k": "ab"}) == []
        assert kinds(check_lists(again, [], {"k": "ba"})) == {"reordered"}


def versions(text: str, observer: str = "") -> list[VersionRead[str]]:
    return [VersionRead("k", version, observer) for version in text]


class TestVersions:
    @pytest.mark.parametrize(("seen", "final"), [("aac", "c"), ("abbc", "c"), ("", "c"), ("a", "c")])
    def test_registers_may_only_become_newer(self, seen: str, final: str) -> None:
        assert check_versions(APPENDS, versions(seen), {"k": final}) == []

    @pytest.mark.parametrize(
        ("seen", "final", "kind"),
        [("ca", "c", "went back"), ("z", "z", "unsent"), ("x", "x", "unsent"), ("a", "b", "lost"), ("", "", "lost")],
    )
    def test_one_anomaly_of_each_kind(self, seen: str, final: str, kind: str) -> None:
        assert kinds(check_versions(APPENDS, versions(seen), {"k": final})) == {kind}

    def test_what_was_shown_is_not_taken_back_in_the_end(self) -> None:
        unknown = [appended("b", 1, Ended.INFO)]
        assert kinds(check_versions(unknown, versions("b"), {})) == {"went back"}


def test_a_history_has_what_tests_added_to_its_sets() -> None:
    first, second, third = events(1, 3)
    history = History()
    history.complete(history.invoke([first]), Ended.OK)
    history.invoke([third])
    history.ok.add(second)
    history.invoked.add(second)
    assert [(one.process, one.ended) for one in history.operations] == [
        ("producer", Ended.OK), ("producer", Ended.INFO), ("the test", Ended.OK),
    ]  # fmt: skip
    assert check_set(history.operations, [first, second, third]).holds
    assert check_set(history.operations, [second]).lost == {first}
