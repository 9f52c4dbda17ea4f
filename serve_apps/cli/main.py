"""Entry point of `intelgraph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serve_apps.cli import (
    access,
    dead_letters,
    demonstration,
    event_log,
    facts,
    ingest,
    lag,
    lifecycle,
    overlays,
    query,
    replay,
    schemas,
    shards,
    snapshots,
    sources,
    streams,
)

HELP = """IntelGraph: live facts in, ranked and answerable cases out.

`intelgraph demo` shows the whole system on this machine; `intelgraph VERB --help` explains a verb.

Exit codes: 0 done, 1 refused or found wrong, 2 written wrongly, 3 not up or busy (try again), 4 done, but some
records became dead letters.
"""

app = typer.Typer(
    name="intelgraph", help=HELP, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
    rich_markup_mode="rich", context_settings={"help_option_names": ["--help", "-h"]},
)  # fmt: skip

for module in (demonstration, lifecycle, lag, shards, event_log, access, ingest, sources, streams, schemas,
               dead_letters, facts, replay, query, snapshots, overlays):  # fmt: skip
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"intelgraph {version('intelgraph')}")
        except PackageNotFoundError:
            typer.echo("intelgraph (from its sources)")
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")] = False,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", metavar="DIR", help="Where this installation keeps its data.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (YAML).")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options that may stand before every verb or after it."""
    ctx.obj = {"as_json": as_json, "state_dir": state_dir, "config": config}


def main() -> None:
    """Run the command that was typed; ends the process with its exit code."""
    app()


if __name__ == "__main__":
    main()
