"""How often a loop reads."""

from __future__ import annotations

from actors.tempo import Tempo


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
