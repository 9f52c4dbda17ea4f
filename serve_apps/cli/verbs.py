"""`verb`: registers a function as a command with the options that every command has, and gives it a Session."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.errors import IntelGraphError, Rejected
from serve_apps.cli.exits import Exit, error_name, exit_of
from serve_apps.cli.session import Session

Run = Callable[..., int | None]
PANEL = "Common options"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.", rich_help_panel=PANEL)]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", metavar="DIR", rich_help_panel=PANEL,
        help="Where this installation keeps its data. [default: .intelgraph, or what the configuration says]",
    ),
]  # fmt: skip
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file (YAML).", rich_help_panel=PANEL),
]
ActorOption = Annotated[str, typer.Option("--as", help="Who does this; the audit shows it.")]
TenantOption = Annotated[str, typer.Option("--tenant", "-t", help="Whose data.")]
_COMMON = {"as_json": (AsJson, False), "state_dir": (StateDir, None), "config": (ConfigFile, None)}


def group(help: str) -> typer.Typer:
    """A command that has commands below it."""
    return typer.Typer(help=help, no_args_is_help=True, add_completion=False)


def verb(app: typer.Typer, name: str, **options: Any) -> Callable[[Run], Run]:
    """Register `run(session, …) -> exit code or None` as a command; its first docstring line is its help.

    The common options may also stand before the verb: `intelgraph --state-dir DIR up`.
    """

    def register(run: Run) -> Run:
        @wraps(run)
        def command(ctx: typer.Context, **arguments: Any) -> None:
            common = {key: arguments.pop(key) or (ctx.find_root().obj or {}).get(key) for key in _COMMON}
            session = Session(common["state_dir"], common["config"], bool(common["as_json"]))
            code = guarded(session, lambda: run(session, **arguments))
            if code:
                raise typer.Exit(code)

        command.__signature__ = _signature(run)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in _signature(run).parameters.values()}
        app.command(name, **options)(command)
        return run

    return register


def _signature(run: Run) -> inspect.Signature:
    _, *own = inspect.signature(run, eval_str=True).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    common = [inspect.Parameter(n, keyword, default=d, annotation=a) for n, (a, d) in _COMMON.items()]
    return inspect.Signature([context, *(p.replace(kind=keyword) for p in own), *common])


def guarded(session: Session, run: Callable[[], int | None]) -> int:
    """Run a command; an operating error is said in words and becomes the exit code."""
    try:
        code = _run_or_report(session, run)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has gone: there is nobody to tell
        _forget_stdout()
        return Exit.DONE
    except OSError as error:  # what was to be printed, the report of an error too, could not be
        _forget_stdout()
        session.output.note(f"intelgraph: the output could not be written: {error.strerror or error}", style="red")
        return Exit.FAILED
    finally:
        session.close()


def _run_or_report(session: Session, run: Callable[[], int | None]) -> int:
    try:
        return int(run() or Exit.DONE)
    except IntelGraphError as error:
        _report(session, error)
        return exit_of(error)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was begun is ending: a second one would end it no sooner
        session.output.note("interrupted", style="")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:  # a folder that cannot be written, a disk that is full, a name that is too long
        refused = Rejected(f"{error.filename or 'this machine'}: {error.strerror or error}")
        _report(session, refused)
        return exit_of(refused)


def _forget_stdout() -> None:
    """Let what is still to be printed go nowhere: Python flushes once more when it ends."""
    with suppress(OSError, ValueError):  # a test's stdout has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _report(session: Session, error: IntelGraphError) -> None:
    output = session.output
    retry = getattr(error, "retry_after_s", None)
    body = {"kind": error_name(error), "message": str(error)}
    output.result({"error": body if retry is None else {**body, "retry_after_s": retry}})
    if not output.as_json:
        output.note(f"intelgraph: {error}", style="red")
