"""A dead letter against what describes it: which part of its payload breaks which part of a schema, or which rule.

    the schema that it names, or that its stream has pinned ─► findings ┐ none
                                      the events that it makes ◄────────┘
                       each against the rules of an event ─► findings ┐ none
                         the stages themselves, as in a dry run ◄─────┘

Everything is by what holds now: schemas, mapping, limits, registrations. Nothing is changed, and no attempt counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

from actors.admission import dry_admission
from actors.connectors.findings import FINDINGS_MOST, Finding, at, finding
from actors.connectors.json_values import JsonValues, parsed
from actors.connectors.schema_values import values_of
from actors.dead_letters import prepared
from actors.letter_rows import ENCODED, ENVELOPE, HOLDS, ROW, LetterRows, cut
from actors.stages.breaches import breaches
from cluster.config import RecordLimits, Settings
from cluster.errors import BadRecord, IntelGraphError
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import DeadLetter
from cluster.streams.schemas import Schema

RULES = "the rules of an event"
_MADE_BY = {ROW: "the mapping of its load", ENVELOPE: "what change capture writes", ENCODED: "its stream"}
_EVERY_BYTES = 64 << 10
"""Of a larger payload only the first breach of a JSON Schema is looked for."""


class HeldAgainst(NamedTuple):
    """What is wrong with a letter.

    Args:
        against: what it was held against: a schema, or the rules of an event.
        findings: at most `FINDINGS_MOST`.
        more: whether there are others.
        note: what else there is to say, and where nothing was found, why.
    """

    against: str
    findings: tuple[Finding, ...]
    more: bool
    note: str

    def as_plain(self) -> dict[str, Any]:
        """Plain values."""
        found = [one._asdict() for one in self.findings]
        return {"against": self.against, "findings": found, "more": self.more, "note": self.note}


def held_against(control: ControlStore, settings: Settings, letter: DeadLetter) -> HeldAgainst:
    """What is wrong with a letter, by what holds now. Blocks on the schema registry where its stream has one."""
    with closing(LetterRows(control, letter.tenant, registry=settings.streams.registry)) as rows:
        try:
            return _Look(settings, letter, rows).look()
        except BadRecord as error:
            return _told(RULES, [finding((), "the record", error.reason)])
        except IntelGraphError as error:
            return _told("", [], f"it could not be held against anything: {error}")


def _told(against: str, found: Iterable[Finding], note: str = "") -> HeldAgainst:
    findings = tuple(islice(found, FINDINGS_MOST + 1))
    return HeldAgainst(against, findings[:FINDINGS_MOST], len(findings) > FINDINGS_MOST, note)


class _Look:
    def __init__(self, settings: Settings, letter: DeadLetter, rows: LetterRows) -> None:
        self._settings, self._letter, self._rows = settings, letter, rows

    def look(self) -> HeldAgainst:
        letter = self._letter
        if not letter.whole:
            return _told("", [finding((), f"{letter.payload_bytes:,} bytes", cut(letter))])
        by_schema = self._by_schema() if letter.headers.get(HOLDS) == ENCODED else None
        if by_schema is not None and by_schema.findings:
            return by_schema
        refusal = self._rows.refusal(letter)
        made = _MADE_BY.get(str(letter.headers.get(HOLDS)))
        try:
            payloads = [] if refusal else [record.payload for record in self._rows.records(letter)]
        except BadRecord as error:
            return _told(made or RULES, [finding((), _beginning(letter.payload), error.reason)])
        found = _told(RULES, _by_rules(payloads, self._settings.records), refusal)
        return found if found.findings or refusal else self._by_stages()

    def _by_schema(self) -> HeldAgainst | None:
        """What the schema has against the value; None: there is no schema, or nothing reads it."""
        try:
            described = self._rows.described(self._letter)
        except BadRecord as error:
            return _told("what its topic holds", [finding((), _beginning(self._letter.payload), error.reason)])
        if described is None:
            return None
        place, schema, payload = described
        against = f"{'Avro' if schema.kind == 'AVRO' else 'JSON'} schema {schema.id} {schema.name} ({place})"
        return _told(against, _by(schema, payload), "" if _all(payload) else "the first is shown, since it is large")

    def _by_stages(self) -> HeldAgainst:
        admission = dry_admission(self._settings, 1)
        failure = prepared(admission, self._letter.tenant, [self._letter], self._rows).failures[0]
        if failure is not None:
            return _told("what its source may say", [finding((), "the record", failure.reason)])
        return _told(RULES, [], "nothing is wrong with it by what holds now: `dlq replay` tries it again")


def _by(schema: Schema, payload: bytes) -> list[Finding]:
    values = values_of(schema)
    if isinstance(values, JsonValues):
        try:
            return values.findings(parsed(payload), every=_all(payload))
        except BadRecord as error:
            return [finding((), _beginning(payload), error.reason)]
    try:
        values.read(payload)
    except BadRecord as error:
        from actors.connectors.avro_findings import avro_findings

        return avro_findings(schema, payload) or [finding((), _beginning(payload), error.reason)]
    return []


def _all(payload: bytes) -> bool:
    return len(payload) <= _EVERY_BYTES


def _by_rules(payloads: Iterable[bytes], limits: RecordLimits) -> Iterator[Finding]:
    """What is wrong with each event that a letter makes."""
    for payload in payloads:
        if len(payload) > limits.record_bytes:
            yield finding((), f"{len(payload):,} bytes", f"a record of at most {limits.record_bytes:,}")
            continue
        try:
            event = parsed(payload)
        except BadRecord as error:
            yield finding((), _beginning(payload), error.reason)
            continue
        if not isinstance(event, dict):
            yield finding((), _beginning(payload), "an object with the fields of an event")
            continue
        for breach in breaches(event, limits):
            yield finding(breach.place, at(event, breach.place), breach.rule)


def _beginning(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload[:16].hex(" ") + (" …" if len(payload) > 16 else "")
