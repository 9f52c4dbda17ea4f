"""A server that outlived its node."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.embedded import Running, ServerSpec, server, start


def left_over(spec: ServerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start one whose starter is killed before it has let anybody in."""

    def killed(running: Running, operator: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(server, "kill_server", lambda spec: None)
        start(spec, killed)
