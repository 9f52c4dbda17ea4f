"""How often a loop reads."""

from __future__ import annotations

from actors.tempo import Tempo, more_behind
from cluster.stores.log import Entry


def test_the_next_reading_waits_for_what_is_left_of_the_interval_and_none_after_a_rest() -> None:
    now = [100.0]
    tempo = Tempo(lambda: now[0])
    assert tempo.left_s() == 0.0
    tempo.found(0.5)
    now[0] += 0.2
    assert round(tempo.left_s(), 6) == 0.3
    now[0] += 0.4
    assert tempo.left_s() == 0.0
    tempo.found(0.5)
    tempo.found(0.0)
    assert tempo.left_s() == 0.0, "more is behind it"


def test_more_may_be_behind_a_full_reading_and_behind_what_is_old() -> None:
    def behind(*entries: tuple[int, float]) -> bool:
        found = {
            0: [],
            1: [Entry(n, b"x" * size, 1, int(1e3 * (50.0 - age_s))) for n, (size, age_s) in enumerate(entries)],
        }
        return more_behind(found, 3, 1_000, 0.25, 50.0)

    assert not behind()
    assert not behind((100, 9.0), (100, 0.2)), "the last one counts"
    assert behind((1, 0.0), (1, 0.0), (1, 0.0))
    assert behind((501, 0.0))
    assert behind((1, 0.4))
