"""Communities: names, sizes, and who holds them together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from overlays.definition import Computed
from overlays.louvain import annotate, community_name, summarise
from tests.overlays.facts import source

LABELS = np.array([0, 0, 2, 2, 2, 5])
INSIDE = np.array([1, 1, 1, 3, 2, 0])
SIZES = np.array([2, 0, 3, 0, 0, 1])
COMPUTED = Computed(INSIDE.astype(np.float64), True, (), {}, {}, LABELS, {"size": SIZES, "inside": INSIDE})
PEOPLE = source("abcdef", {"c1": "abcdef"})


def test_each_entity_gets_its_communitys_least_member_as_name() -> None:
    assert annotate(COMPUTED, PEOPLE, np.array([4, 1, 5])) == [
        {"community": "person:c", "community_size": 3, "community_links": 2},
        {"community": "person:a", "community_size": 2, "community_links": 1},
        {"community": "person:f", "community_size": 1, "community_links": 0},
    ]
    assert annotate(COMPUTED, PEOPLE, np.empty(0, np.int64)) == []


def test_the_largest_with_their_best_members() -> None:
    rows = summarise(COMPUTED, PEOPLE, 2)
    assert [(row["community"], row["size"]) for row in rows] == [("person:c", 3), ("person:a", 2)]
    assert rows[0]["members"] == [{"type": "person", "id": name} for name in "dec"]
    assert len(summarise(COMPUTED, PEOPLE, 10)) == 3


def test_nobody(tmp_path: Path) -> None:
    none = np.empty(0, np.int64)
    computed = Computed(np.empty(0), True, (), {}, {}, none, {"size": none, "inside": none})
    assert summarise(computed, source("", {}), 5) == []


def test_no_two_entities_make_one_name() -> None:
    assert community_name(("a", "b:c")) != community_name(("a-b", "c"))
