"""The lake appender's actor, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.lake_appender_actor import LakeAppenderActor
from actors.stack import Stack
from actors.supervisor import plain
from cluster.config import Settings


def test_it_steps_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("actors.lake_appender_actor.step_aside", lambda: asked.append("behind"))
    monkeypatch.setattr(Stack, "log_as", lambda *_: None)
    appender = LakeAppenderActor(plain(Settings(state_dir=tmp_path)))
    appender.stop()
    assert appender.status()["ended"]
    assert asked == ["behind"]
