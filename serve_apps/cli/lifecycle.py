"""`up`, `down`, `status`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import Corrupt, IntelGraphError, Rejected
from serve_apps.cli.exits import Exit
from serve_apps.cli.output import moment, size
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import verb
from serve_apps.cli.workers import show_workers

if TYPE_CHECKING:
    from serve_apps.node_state import NodeState

_UP_S, _DOWN_S = 300.0, 180.0
_ROOM_BYTES = 1 << 20
_TOKEN_SCOPES = ("read", "ingest", "operate")
Wait = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait.")]
ForTenant = Annotated[
    str | None, typer.Option("--tenant", "-t", help="Whose token is printed. [default: the first tenant there is]")
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    verb(app, "up", rich_help_panel="Running it")(up)
    verb(app, "down", rich_help_panel="Running it")(down)
    verb(app, "status", rich_help_panel="Running it")(status)


def up(session: Session, timeout_s: Wait = _UP_S, tenant: ForTenant = None) -> int:
    """Start the system, with the data that is there, and wait until it is ready. Safe to call twice."""
    with going_on(session):
        node, fresh = start_node(session, timeout_s)
    if node is None:
        return Exit.FAILED
    tenant = tenant or next(iter(session.control.sources.tenants()), None)
    token = issue_token(session, tenant) if tenant else None
    document = {"already_up": not fresh, **asdict(node), "tenant": tenant, "token": token}
    session.output.result(document)
    session.output.text(f"IntelGraph is up ({node.seconds:.0f} s)" if fresh else "IntelGraph is up already")
    welcome(session, node, tenant, token)
    return Exit.DONE


@contextmanager
def going_on(session: Session) -> Iterator[None]:
    """When the command is interrupted, say what does not end with it."""
    try:
        yield
    except KeyboardInterrupt:
        session.output.note("what was started goes on: `intelgraph down` stops it", style="yellow")
        raise


def start_node(session: Session, timeout_s: float = _UP_S) -> tuple[NodeState | None, bool]:
    """(the ready node, whether it was started now); None after having said why it could not start.

    Raises:
        Unavailable: it takes longer than `timeout_s`.
    """
    from serve_apps.cli import node_process
    from serve_apps.node_state import read_node

    running = read_node(session.state_dir)
    if running is not None and running.phase == "ready":
        return running, False
    if running is not None:
        return _wait_for_other(session, timeout_s), False
    _require_room(session.state_dir)
    with session.output.waiting("starting") as status:
        child = node_process.spawn(session.state_dir, session.environment)
        try:
            return node_process.wait_ready(child, session.state_dir, timeout_s, status), True
        except Corrupt as error:
            other = read_node(session.state_dir)
            if other is None or other.pid == child.pid:
                _say_failure(session, error)
                return None, True
    return _wait_for_other(session, timeout_s), False  # two commands started one at the same moment: one got the lock


def _require_room(state_dir: Path) -> None:
    """Raises Rejected where the state directory cannot be written: a node could not even say why it ended."""
    from cluster.embedded.paths import private_folder

    trial = state_dir / f".room-{os.getpid()}"
    try:
        private_folder(state_dir)
        trial.write_bytes(bytes(_ROOM_BYTES))
    except OSError as error:
        advice = "free space there, or choose another folder with --state-dir or INTELGRAPH__STATE_DIR"
        raise Rejected(f"{state_dir} cannot be written ({error.strerror}): {advice}") from error
    finally:
        with suppress(OSError):
            trial.unlink()


def _wait_for_other(session: Session, timeout_s: float) -> NodeState:
    """Another command is starting the node: wait for that one. Raises NotUp."""
    from serve_apps.node_state import read_node

    end = time.monotonic() + timeout_s
    with session.output.waiting("somebody else is starting it"):
        while (found := read_node(session.state_dir)) and found.phase != "ready" and time.monotonic() < end:
            time.sleep(0.2)
    return session.node


def _say_failure(session: Session, error: IntelGraphError) -> None:
    from serve_apps.cli import node_process

    tail = node_process.log_tail(session.state_dir)
    session.output.result({"error": {"kind": "failed", "message": str(error)}, "log_tail": tail})
    session.output.note(f"intelgraph: {error}", style="red")
    if not session.output.as_json:
        for line in tail:
            session.output.note(f"  {line}")


def issue_token(session: Session, tenant: str) -> str:
    """A token with every scope for every source of a tenant, for whoever can read the state directory."""
    from serve_apps.tokens import TokenAuthority

    hours = session.settings.query.token_hours
    return TokenAuthority.open(session.state_dir).issue(tenant, _TOKEN_SCOPES, ["*"], hours * 3600, "command line")


def welcome(session: Session, node: NodeState, tenant: str | None, token: str | None) -> None:
    """Addresses, a token, and three commands to try. Without a tenant there is no token yet."""
    output, command = session.output, _typed()
    for note in node.notes:
        output.note(note, style="yellow")
    output.facts({"API": node.api, "dashboard": f"{node.dashboard}  (its token: {session.ray_token})"})
    if token is None:
        tried = [f"{command} demo", f"{command} ingest FILE --tenant NAME --case NAME", f"{command} status"]
    else:
        output.text(f"token    for tenant {tenant}, {session.settings.query.token_hours} hours:")
        output.lines_for_people([str(token)])
        tried = [
            f"curl -H 'Authorization: Bearer {token}' {node.api}/v1/cases",
            f"{command} query search --tenant {tenant} TEXT",
            f"{command} overlay top pagerank --tenant {tenant}",
        ]
    output.text("\nTry:")
    output.lines_for_people(f"  {line}" for line in tried)


def _typed(program: str | None = None) -> str:
    """How this program is called from where the user is: by its name alone only where the shell finds it.

    Args:
        program: as the shell has started it.
    """
    program = program or sys.argv[0]
    name = Path(program).name
    found = shutil.which(name)
    by_name = found is not None and Path(found).resolve() == Path(program).resolve()
    return name if by_name else shlex.quote(program)


def down(session: Session, timeout_s: Wait = _DOWN_S) -> int:
    """Stop the system. The data stays, `intelgraph up` brings it back. Safe to call twice."""
    from serve_apps.cli import node_process

    if not session.state_dir.is_dir():
        pid, left = None, []
    else:
        with session.output.waiting("stopping: shards save themselves"):
            pid = node_process.terminate(session.state_dir, timeout_s)
            left = node_process.stop_left_over(session.state_dir)
    session.output.result({"stopped": pid is not None or bool(left), "pid": pid, "left_over": left})
    if left:
        session.output.text(f"stopped {', '.join(left)}, left over from a node that had ended")
    if pid is not None:
        session.output.text(f"IntelGraph is down; its data stays in {session.state_dir}")
    elif not left:
        session.output.text(f"IntelGraph is not up in {session.state_dir}")
    return Exit.DONE


def status(session: Session) -> int:
    """Show node, servers, actors, shards, log, lake and snapshots. Exit code 3 when it is not up."""
    from serve_apps.cli import survey
    from serve_apps.node_state import read_node

    node = read_node(session.state_dir)
    if node is None:
        session.output.result({"up": False, "state_dir": str(session.state_dir)})
        session.output.text(f"IntelGraph is not up in {session.state_dir}: start it with `intelgraph up`")
        return Exit.RETRY
    found = survey.survey(session, node)
    session.output.result({"up": True, **found})
    _show(session, node, found)
    return Exit.DONE if node.phase == "ready" else Exit.RETRY


def _show(session: Session, node: NodeState, found: dict[str, list[dict[str, object]]]) -> None:
    output = session.output
    output.facts({
        "node": f"{node.phase}, process {node.pid}, since {moment(node.started)}",
        "API": node.api or None, "dashboard": node.dashboard or None, "data": str(session.state_dir),
    })  # fmt: skip
    for note in node.notes:
        output.note(note, style="yellow")
    output.text()
    for title in ("servers", "actors", "shards"):
        rows = found[title]
        columns = list(rows[0]) if rows else ["name"]
        output.table(title, columns, [list(row.values()) for row in rows])
    show_workers(output, next(iter(found["stream_workers"]), None))
    for row in found["storage"]:
        bytes_used = row.get("log_bytes")
        output.facts({**row, "log_bytes": size(bytes_used) if isinstance(bytes_used, int) else None})
