"""`ingest`: your own files in, with a dry run, an honest summary, and a way back."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve_apps.cli.exits import Exit, Misused
from serve_apps.cli.output import moment, size
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import ActorOption, TenantOption, verb

if TYPE_CHECKING:
    from rich.progress import Progress

    from actors.connectors import ColumnMapping
    from actors.loads import LoadFile, LoadProgress, Preview
    from serve_apps.cli.loading import Report, Summary

MappingFile = Annotated[Path | None, typer.Option("--mapping", help="YAML file: how a row becomes events.")]
MappingPairs = Annotated[list[str], typer.Option("--map", help="key=value of a mapping; several times.")]
FORMATS = ("csv", "tsv", "jsonl", "parquet", "stix")
HELP = """Take in your own CSV, JSON lines, Parquet or STIX 2.1.

A JSON line, Parquet row or CSV row that has the event's fields needs no mapping. For other columns say how a row
becomes an event, in a YAML file (--mapping people.yaml) or in pairs:

  intelgraph ingest people.csv -t acme -c case-1 --map type=person --map 'id={email}' --map props=name,email --dry-run
"""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:@+-]+")


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    ingest = typer.Typer(help="Take in your own files; list and take back loads.", no_args_is_help=True,
                         cls=_FilesByDefault)  # fmt: skip
    app.add_typer(ingest, name="ingest", rich_help_panel="Facts")
    verb(ingest, "file", help=HELP)(ingest_files)
    verb(ingest, "list")(list_loads)
    verb(ingest, "undo")(undo)


class _FilesByDefault(typer.core.TyperGroup):
    """`intelgraph ingest FILE` is `intelgraph ingest file FILE`: a first word that is no verb of ours is a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with the verb put before files."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["file", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


def ingest_files(
    session: Session,
    files: Annotated[list[str], typer.Argument(help="Files.", metavar="FILE...")],
    tenant: TenantOption,
    source: Annotated[
        str | None, typer.Option("--source", "-s", help="Whose facts these are. [default: the file's name]")
    ] = None,
    case: Annotated[str | None, typer.Option("--case", "-c", help="Case of records that name none.")] = None,
    format: Annotated[str | None, typer.Option(help=f"{', '.join(FORMATS)}. [default: by the file's name]")] = None,
    mapping: MappingFile = None,
    pairs: MappingPairs = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen, write nothing.")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Longest wait for the shards; 0: do not wait.")
    ] = 300.0,
) -> int:
    """Take in files. Exit code 4 when some records became dead letters."""
    wanted = [_file(name, tenant, source, case, format, mapping, pairs) for name in files]
    if dry_run:
        return _preview(session, wanted)
    try:
        done = load_all(session, wanted, wait_s)
    except KeyboardInterrupt:
        session.output.note("what was read is durable: the same command goes on from there", style="yellow")
        raise
    session.output.result({"loads": [one.as_json() for one in done]})
    show_summaries(session, done)
    if any(one.missing for one in done):
        return Exit.RETRY
    return Exit.BAD_RECORDS if any(one.dead for one in done) else Exit.DONE


def _file(
    name: str, tenant: str, source: str | None, case: str | None, format: str | None, mapping: Path | None,
    pairs: list[str],
) -> LoadFile:  # fmt: skip
    from actors.loads import LoadFile

    if format is not None and format not in FORMATS:
        raise Misused(f"--format {format}: one of {', '.join(FORMATS)}")
    if "://" in name:
        raise Misused(f"{name}: URLs are not read yet; download the file, then ingest it")
    return LoadFile(Path(name), tenant, source or source_of(name), format, mapping_of(mapping, pairs), case)


def mapping_of(file: Path | None, pairs: list[str]) -> ColumnMapping | None:
    """The mapping of `--mapping FILE` or `--map key=value`. Raises Misused, Rejected."""
    from actors.connectors import mapping_from_pairs, mapping_from_yaml

    if file is not None and pairs:
        raise Misused("--mapping and --map exclude each other: put all of it into one")
    try:
        return mapping_from_yaml(file.read_text()) if file else mapping_from_pairs(pairs) if pairs else None
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f"--mapping {file}: {error}") from error


def source_of(name: str) -> str:
    """The source that a file's name suggests: `people.csv.gz` is `people`."""
    stem = _NOT_IN_NAMES.sub("-", Path(name).name.split(".")[0]).strip("-._:@+")
    if not stem:
        raise Misused(f"{name}: the name gives no source; say --source")
    return stem[:255]


def _preview(session: Session, files: list[LoadFile]) -> int:
    from actors.loads import FileLoads

    loads = FileLoads(session.control, session.log, session.settings)
    found = []
    for file in files:
        with session.output.waiting(f"reading {file.path}"):
            found.append((file, loads.preview(file)))
    told = [{"file": str(f.path), "source": f.source, **vars(p)} for f, p in found]  # Counters are no fields of asdict
    session.output.result({"dry_run": told})
    for file, seen in found:
        _show_preview(session, file, seen)
    return Exit.BAD_RECORDS if any(seen.dead for _, seen in found) else Exit.DONE


def _show_preview(session: Session, file: LoadFile, seen: Preview) -> None:
    output, dead = session.output, sum(seen.dead.values())
    output.text(f"{file.path}: {seen.records:,} records ({size(seen.bytes)}) would be taken as of source {file.source},"
                f" {dead:,} would become dead letters; nothing was written")  # fmt: skip
    output.table("what they are", ("kind and type", "records"), sorted(seen.kinds.items()))
    if seen.first:
        names = sorted({name for record in seen.first for name in record if record[name] not in ("", None, {})})
        output.table("the first", names, [[record.get(name) for name in names] for record in seen.first])
    if seen.errors:
        rows = [(", ".join(map(str, e["position"])), e["class"], e["reason"]) for e in seen.errors]
        output.table("the first that cannot be taken", ("position", "class", "reason"), rows)


def load_all(session: Session, files: list[LoadFile], wait_s: float) -> list[Summary]:
    """Load files one after the other, with progress. Raises as `loading.load_file`."""
    from serve_apps.cli.cluster import joined
    from serve_apps.cli.loading import load_file

    done = []
    with session.output.progress() as bars, joined(session):
        from actors.ingest_actor import LoadRequest

        for f in files:
            mapping = f.mapping.model_dump(mode="json", by_alias=True) if f.mapping else None
            request = LoadRequest(str(f.path.resolve()), f.tenant, f.source, f.format, mapping, f.case)
            done.append(load_file(session, request, wait_s, reporting(bars, f.path.name)))
    return done


def reporting(bars: Progress, name: str) -> Report:
    """Progress of one load on two bars: reading with its rate, and shards with their lag."""
    reading = bars.add_task(f"reading {name}", total=None, detail="")
    applying = bars.add_task("applying", total=None, detail="")
    most = [0]

    def report(progress: LoadProgress | None, lag: int) -> None:
        if progress is not None:
            detail = f"{progress.records:,} records, {progress.records_per_s:,.0f}/s"
            detail += f", {progress.dead:,} dead letters" if progress.dead else ""
            detail += ", waiting" if progress.waiting else ""
            bars.update(reading, completed=progress.bytes_done, total=progress.bytes_total, detail=detail)
        most[0] = max(most[0], lag)
        bars.update(applying, completed=most[0] - lag, total=most[0] or None, detail=f"lag {lag:,} log entries")

    return report


def show_summaries(session: Session, done: list[Summary]) -> None:
    """What became of each file, and how to look at it."""
    output = session.output
    columns = ("load", "source", "read", "applied", "duplicate", "stale", "dead letters", "seconds")
    output.table("loads", columns, [
        (x.load, x.source, x.acked + x.dead, x.applied, x.duplicate, x.stale, x.dead, x.read_s + x.wait_s) for x in done
    ])  # fmt: skip
    for one in done:
        _say_what_to_look_at(session, one)


def _say_what_to_look_at(session: Session, one: Summary) -> None:
    from serve_apps.cli.loading import NOT_YET

    text = session.output.text
    if one.missing:
        text(f"{one.missing:,} records are durable and not applied yet: {NOT_YET}", "yellow")
    if one.again:
        text(f"{one.again:,} outcomes more than this reading: the same content was taken in twice meanwhile")
    if one.acked and one.duplicate == one.acked:
        text("all of it was there already: this content was taken in before")
    if one.dead:
        text(f"dead letters:  intelgraph dlq list --tenant {one.tenant} --source {one.source}", "yellow")
    if one.acked:
        text(f"what is there:  intelgraph query search --tenant {one.tenant}   (an entity shows all its sources)")
    if one.applied:
        text(f"take it back:  intelgraph ingest undo {one.load} --tenant {one.tenant}")


def list_loads(
    session: Session, tenant: TenantOption, limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20
) -> None:
    """List a tenant's loads, newest first."""
    found = session.control.loads.list(tenant, limit)
    session.output.result({"loads": [{**asdict(load), "uncounted": load.uncounted} for load in found]})
    columns = ("load", "file", "source", "epoch", "state", "acked", "applied", "duplicate", "stale", "not counted",
               "dead letters", "started")  # fmt: skip
    session.output.table(f"loads of {tenant}", columns, [
        (x.id, x.label, x.source, str(x.epoch), x.state, x.acked, x.applied, x.duplicate, x.stale, x.uncounted, x.dead,
         moment(x.started)) for x in found
    ])  # fmt: skip
    if any(load.uncounted for load in found):
        session.output.note(
            "not counted: acknowledged, hence durable, and applied by and by; the command that counts what became of"
            " them is at work or has ended before it could. `intelgraph audit` shows whether all were applied"
        )


def undo(
    session: Session,
    load: Annotated[str, typer.Argument(help="The load's id: `intelgraph ingest list`.")],
    tenant: TenantOption,
    actor: ActorOption = "command line",
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="Longest wait for lake and shards.")
    ] = 120.0,
) -> int:
    """Take a load back: what it said is hidden, what its source said otherwise stays. Safe to call twice."""
    from serve_apps.cli.taking_back import take_back

    with session.output.waiting(f"taking back load {load}"):
        done, left = take_back(session, tenant, load, actor, wait_s)
    kept = done.said_again
    session.output.result({"load": asdict(done.load), "said_again": kept, "behind": left})
    session.output.text(f"load {load} is taken back" + (f"; {kept:,} earlier records show again" if kept else ""))
    if left:
        session.output.text("the shards are still applying it: `intelgraph lag`", "yellow")
    return Exit.RETRY if left else Exit.DONE
