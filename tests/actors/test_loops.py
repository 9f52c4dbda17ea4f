"""The loops of writer and lake appender go on after whatever happens in a turn, and say what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.lake_appender_actor import LakeAppenderLoop
from actors.shard_writer_actor import ShardWriterLoop
from actors.stack import Stack
from cluster.config import Settings


@pytest.mark.parametrize("make", [lambda stack: ShardWriterLoop(stack, "shard-0"), LakeAppenderLoop])
def test_an_error_that_nobody_expects_ends_no_loop(
    make: Callable[[Stack], ShardWriterLoop | LakeAppenderLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make(Stack(Settings(state_dir=tmp_path)))
    said: list[str] = []

    def turn() -> None:
        said.append(loop.status.reason if isinstance(loop, ShardWriterLoop) else loop.reason)
        if len(said) == 2:
            loop.stop()
        raise RuntimeError("a defect")

    monkeypatch.setattr(loop, "_turn", turn)
    monkeypatch.setattr(loop._stopping, "wait", lambda seconds: None)
    loop.run()
    assert "a defect" in said[1]
