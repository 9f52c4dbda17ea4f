"""`dlq`: records that could not be taken, kept whole until somebody replays them."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import ERROR_CLASSES
from serve_apps.cli.exits import Exit, Misused
from serve_apps.cli.ingest import MappingFile, MappingPairs, mapping_of
from serve_apps.cli.output import moment
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import ActorOption, TenantOption, group, verb

if TYPE_CHECKING:
    from cluster.stores.control_dead_letters import DeadLetter

OfClass = Annotated[str | None, typer.Option("--class", help=f"Only this class: {', '.join(ERROR_CLASSES)}.")]
OfSource = Annotated[str | None, typer.Option("--source", help="Only this source.")]
OfType = Annotated[str | None, typer.Option("--type", help="Only records of this type.")]
OfAttempts = Annotated[int | None, typer.Option("--attempts", min=0, help="Only those that were tried so often.")]
OfState = Annotated[str | None, typer.Option("--state", help="Only this state: waiting, replayed, quarantined.")]
_PAGE = 1_000
_PAYLOAD_CHARS = 2_000


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    dlq = group("Dead letters: records that could not be taken, kept whole.")
    app.add_typer(dlq, name="dlq", rich_help_panel="Facts")
    verb(dlq, "list")(list_letters)
    verb(dlq, "show")(show)
    verb(dlq, "replay")(replay)


def list_letters(
    session: Session, tenant: TenantOption, error_class: OfClass = None, source: OfSource = None,
    type: OfType = None, attempts: OfAttempts = None, state: OfState = None,
    after: Annotated[int, typer.Option(help="Go on behind this sequence number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="At most so many.")] = 50,
) -> None:  # fmt: skip
    """List a tenant's dead letters, oldest first, and how many there are of each class, source, type and so on."""
    chosen = {"error_class": _known_class(error_class), "source": source, "type": type, "attempts": attempts,
              "state": _known_state(state)}  # fmt: skip
    letters = session.control.dead_letters
    found = letters.list(tenant, **chosen, after=after, limit=limit)
    facets = letters.facets(tenant)
    following = found[-1].sequence if len(found) == limit else None
    session.output.result({"dead_letters": [plain(x) for x in found], "facets": facets, "next": following})
    rows = [(str(x.sequence), x.id, x.source, x.error_class, x.reason, x.state, x.attempts, moment(x.first_seen))
            for x in found]  # fmt: skip
    columns = ("sequence", "id", "source", "class", "reason", "state", "attempts", "first seen")
    counts = [(name, ", ".join(f"{value or '-'}: {number:,}" for value, number in sorted(of.items())))
              for name, of in facets.items() if of]  # fmt: skip
    if counts:
        session.output.table(f"all dead letters of {tenant}", ("by", "how many"), counts)
    caption = f"more: --after {following}" if following is not None else ""
    session.output.table(f"dead letters of {tenant}", columns, rows, caption)
    if found:
        session.output.text(f"`intelgraph dlq show ID -t {tenant}` shows one whole, `dlq replay` tries again")


def _known_class(name: str | None) -> str | None:
    if name is not None and name not in ERROR_CLASSES:
        raise Misused(f"--class {name}: one of {', '.join(ERROR_CLASSES)}")
    return name


def _known_state(name: str | None) -> Any:
    if name not in (None, "waiting", "replayed", "quarantined"):
        raise Misused(f"--state {name}: waiting, replayed or quarantined")
    return name


def plain(letter: DeadLetter) -> dict[str, Any]:
    """A letter as JSON: the payload as text, or in base64 where it is none."""
    values = asdict(letter)
    payload: bytes = values.pop("payload")
    try:
        return {**values, "payload": payload.decode()}
    except UnicodeDecodeError:
        return {**values, "payload_base64": base64.b64encode(payload).decode()}


def show(session: Session, id: Annotated[str, typer.Argument(help="Its id.")], tenant: TenantOption) -> None:
    """Show one dead letter: why it could not be taken, what of it breaks which part of its schema, its bytes.

    The schema is the one that it names, or that its stream has pinned; without one the rules of an event count. All
    by what holds now, which may be another thing than when it came.
    """
    from actors.letter_findings import held_against

    found = session.control.dead_letters.get(tenant, id)
    held = held_against(session.control, session.settings, found)
    session.output.result({**plain(found), "held": held.as_plain()})
    session.output.facts({
        "id": found.id, "source": found.source, "epoch": str(found.epoch),
        "position": ", ".join(map(str, found.position)), "type": found.type or None, "class": found.error_class,
        "reason": found.reason, "state": found.state, "attempts": found.attempts,
        "first seen": moment(found.first_seen), "last attempt": moment(found.last_attempt),
        "bytes": found.payload_bytes, "kept whole": found.whole, "sha256": found.payload_sha256, **found.headers,
    })  # fmt: skip
    if held.findings:
        rows = [(one.path or "(the whole)", one.found, one.wants) for one in held.findings]
        more = "there are more" if held.more else ""
        session.output.text()
        session.output.table(f"held against {held.against}", ("where", "found", "wanted"), rows, more)
    if held.note:
        session.output.text(held.note)
    text = found.payload.decode("utf-8", "backslashreplace")
    session.output.text("\n" + text[:_PAYLOAD_CHARS] + ("…" if len(text) > _PAYLOAD_CHARS else ""))


def replay(
    session: Session,
    tenant: TenantOption,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids; or --all.", metavar="[ID]...")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that wait and fit the filters.")] = False,
    error_class: OfClass = None,
    source: OfSource = None,
    type: OfType = None,
    attempts: OfAttempts = None,
    rate: Annotated[float, typer.Option(min=0.1, max=1e6, help="Letters a second, at most.")] = 1_000.0,
    mapping: MappingFile = None,
    pairs: MappingPairs = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")] = 10_000,
    actor: ActorOption = "command line",
) -> int:
    """Try dead letters again, with the positions that they had. Exit code 4 while some are still bad.

    A letter that holds a row is read with its load's mapping, or with the one given here.
    """
    from actors.dead_letters import LetterFilter, Replay

    if bool(ids) == every:
        raise Misused("name the dead letters to replay, or say --all")
    matching = LetterFilter(_known_class(error_class), source, type, attempts)
    if ids and matching != LetterFilter():
        raise Misused("--class, --source, --type and --attempts choose among all: leave them out where ids are named")
    columns = mapping_of(mapping, pairs)
    with session.output.waiting("replaying"):
        replays = Replay(session.control, session.log, session.settings)
        done = replays.replay(
            tenant, actor, ids=ids or None, matching=matching, mapping=columns, dry_run=dry_run, rate_per_s=rate,
            limit=limit,
        )  # fmt: skip
    states = {state: done.count(state) for state in ("replayed", "waiting", "quarantined")}
    letters = [asdict(letter) for letter in done.letters]
    session.output.result({"dry_run": dry_run, **states, "skipped": done.skipped, "letters": letters})
    session.output.text("this is what would happen; nothing was changed" if dry_run else "done")
    session.output.facts({"replayed": states["replayed"], "still bad": states["waiting"],
                          "quarantined": states["quarantined"], "left out": done.skipped})  # fmt: skip
    bad = [(x.id, x.state, x.error_class, x.reason) for x in done.letters if x.state != "replayed"]
    if bad:
        session.output.table("not replayed", ("id", "state", "class", "reason"), bad)
    return Exit.BAD_RECORDS if bad else Exit.DONE
