"""What a dead letter holds, as payloads for the stages: an event, or a row or an envelope that makes some.

A row is read as its load read it, or with a corrected mapping; either way its records have the positions that the
load's reading would have given them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from actors.connectors import ColumnMapping, RawRecord
from actors.connectors.debezium import changes
from actors.connectors.kept_rows import RowReader, row_reader
from actors.encoded_letters import EncodedLetters
from cluster.config_registry import RegistrySettings
from cluster.errors import BadRecord, NotFound, Rejected
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import DeadLetter
from cluster.streams.schemas import Schema

HOLDS, ROW, EVENT, ENVELOPE, ENCODED = "holds", "row", "event", "envelope", "encoded"
"""The header of a letter that says what its payload is; `encoded`: a value as the topic has it, read by a schema."""
OF_TABLE, READ_WITH = "table", "snapshot_lsn"
"""The headers of an envelope of change capture: the table that its topic is of, and what it has to be read with."""
TIMELINE = "timeline"
"""The header with the epoch of events that bring positions of their own, where the letter's is not theirs."""


class LetterRows:
    """Reads letters of one tenant. One thread uses an instance.

    Args:
        mapping: for rows, in place of their load's.
        registry: where the schemas of encoded records are.
    """

    def __init__(
        self,
        control: ControlStore,
        tenant: str,
        mapping: ColumnMapping | None = None,
        registry: RegistrySettings = RegistrySettings(),
    ) -> None:
        self._control, self._tenant, self._mapping = control, tenant, mapping
        self._encoded = EncodedLetters(control, registry)
        self._readers: dict[str, RowReader | str] = {}
        self._sources: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._encoded.close()

    def refusal(self, letter: DeadLetter) -> str:
        """Why the letter cannot be tried, whatever its bytes say; empty if it can."""
        if not letter.whole:
            return cut(letter)
        if not self._accepts(self._tenant, letter.source):
            return f"source {letter.source!r} is killed: nothing of it is accepted"
        if letter.headers.get(HOLDS) == ROW:
            reader = self._reader(letter)
            return reader if isinstance(reader, str) else ""
        if letter.headers.get(HOLDS) == ENCODED and (reason := self._encoded.refusal(letter)):
            return reason
        if self._mapping is not None:
            return "it holds no row, and a mapping is for rows: replay it without one"
        return ""

    def records(self, letter: DeadLetter) -> list[RawRecord]:
        """Payloads with their positions. Raises BadRecord, Unavailable; only for letters that are not refused."""
        if letter.headers.get(HOLDS) == ENVELOPE:
            return _changed(letter, letter.payload)
        if letter.headers.get(HOLDS) == ENCODED:
            payload = self._encoded.json(letter)
            return _changed(letter, payload) if READ_WITH in letter.headers else [RawRecord(letter.position, payload)]
        if letter.headers.get(HOLDS) != ROW:
            return [RawRecord(letter.position, letter.payload)]
        reader = self._reader(letter)
        if isinstance(reader, str):
            raise TypeError("a letter that is refused is not read")
        return reader(letter.position, letter.payload)

    def described(self, letter: DeadLetter) -> tuple[str, Schema, bytes] | None:
        """See `EncodedLetters.described`. Only for letters that hold an encoded value."""
        return self._encoded.described(letter)

    def tenants(self, letter: DeadLetter) -> frozenset[str]:
        """Whose records it may make. Only for letters that are not refused."""
        if letter.headers.get(HOLDS) != ENCODED:
            return frozenset({self._tenant})
        return frozenset(one for one in self._encoded.tenants(letter) if self._accepts(one, letter.source))

    def _accepts(self, tenant: str, source: str) -> bool:
        if (tenant, source) not in self._sources:
            self._sources[tenant, source] = self._control.sources.get(tenant, source).state
        return self._sources[tenant, source] == "active"

    def _reader(self, letter: DeadLetter) -> RowReader | str:
        load = str(letter.headers.get("load", ""))
        if load not in self._readers:
            try:
                described = self._control.loads.get(self._tenant, load).mapping
                self._readers[load] = _reader_of(described, self._mapping)
            except (NotFound, Rejected) as error:
                self._readers[load] = error.reason
        return self._readers[load]


def _changed(letter: DeadLetter, payload: bytes) -> list[RawRecord]:
    found = changes(payload, int(letter.headers.get(READ_WITH, 0)), letter.headers.get(OF_TABLE))
    if found.floor is not None and not found.payloads:
        raise BadRecord("schema", "it says that the table was emptied: that cannot be replayed; read the table again")
    return [RawRecord((letter.position[0], number), event) for number, event in enumerate(found.payloads, 1)]


def _reader_of(described: Mapping[str, Any], corrected: ColumnMapping | None) -> RowReader:
    """How a load's rows are read. Raises Rejected."""
    own, case = described.get("mapping"), described.get("case")
    try:
        mapping = corrected or (None if own is None else ColumnMapping.model_validate(own))
    except ValidationError as error:
        raise Rejected("the load's own mapping is of another version: give one (--mapping)") from error
    return row_reader(described.get("row", {}), mapping, {} if case is None else {"case": case})


def cut(letter: DeadLetter) -> str:
    """What to say of a letter of which only the beginning is kept."""
    file, position = letter.headers.get("file"), letter.headers.get("position")
    where = f"{file}, position {position[0]:,}: " if file and position else ""
    limit = f"the first {len(letter.payload):,} are kept (ingest.dead_letter_payload_bytes)"
    todo = f"correct it in its source, or raise the limit, and ingest that ({letter.reason})"
    return f"{where}it had {letter.payload_bytes:,} bytes and {limit}; {todo}"
