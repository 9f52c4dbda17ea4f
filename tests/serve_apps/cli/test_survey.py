"""What `status` makes of Ray's answers."""

from __future__ import annotations

from typing import Any

from serve_apps.cli.survey import actor_rows


def actor(name: str, state: str, pid: int) -> dict[str, Any]:
    """As Ray's dashboard lists one."""
    return {"name": name, "class_name": "Some", "state": state, "pid": pid}


def test_who_has_no_process_yet_has_no_pid() -> None:
    """A signal to Ray's 0 would go to the process group of who sends it: to the test run, or an operator's shell."""
    found = [
        actor("writer:1", "PENDING_CREATION", 0),
        actor("writer:0", "ALIVE", 4711),
        actor("", "RESTARTING", 0),
        actor("writer:2", "DEAD", 4712),
    ]
    assert actor_rows(found) == [
        {"name": "Some", "state": "RESTARTING", "pid": None},
        {"name": "writer:0", "state": "ALIVE", "pid": 4711},
        {"name": "writer:1", "state": "PENDING_CREATION", "pid": None},
    ]
