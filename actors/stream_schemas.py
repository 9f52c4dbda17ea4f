"""Holds the records of a stream against their schemas: what reads them, and what stops the topic.

    records ─ examine ─► those that may be taken, how their values are read │ the schema at which the topic stops

The schema is at fault, or the record is. A schema that was never met, and breaks what is pinned, stops the topic before
its first record: whatever is written by it would be read wrongly. A record that its own good schema did not write, or
refuses, is a bad record, and the topic goes on (docs/adr/0012). A registry that does not answer is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from actors.admission import Clock
from actors.connectors.json_values import Breach, JsonValues, parsed
from actors.connectors.schema_values import record_of, wire
from actors.connectors.topic import Decode, TimedRecord, as_it_is
from actors.schema_verdicts import Verdicts
from cluster.config_registry import RegistrySettings
from cluster.errors import BadRecord, NotFound, Rejected, Unavailable
from cluster.stores.control import ControlStore
from cluster.stores.schema_registry import SchemaRegistry
from cluster.streams.model import Stream
from cluster.streams.schemas import Schema, SeenSchema
from cluster.telemetry import metrics
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.stream_schemas")
UNREAD = "unread"
"""The key of what stops a topic of which nothing was ever read."""
_MISSING_MOST, _MISSING_RETRY_S = 10_000, 0.2


@dataclass(frozen=True)
class Examined:
    """Records that may be taken.

    Args:
        upto: offset to go on at behind them.
        decode: how their values are read.
        drift: the schema, or the breach of one, at which the topic stops; nothing behind `upto` may be taken.
    """

    records: Sequence[TimedRecord]
    upto: int
    decode: Decode = as_it_is
    drift: SeenSchema | None = None


class StreamSchemas:
    """The schemas of one stream. For one thread; nothing that matters lives here.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, control: ControlStore, settings: RegistrySettings, clock: Clock = time.time) -> None:
        self._control, self._settings, self._clock = control, settings, clock
        self._opened: SchemaRegistry | None = None
        self._created = 0.0
        self._readers: dict[int, Callable[[bytes], bytes]] = {}
        self._pinned: tuple[int, JsonValues] | None = None
        self._missing: dict[int, float] = {}
        self._asked_again, self._away = 0.0, ""

    @property
    def _registry(self) -> SchemaRegistry:
        if time.monotonic() < self._asked_again:
            raise Unavailable(self._away)
        if self._opened is None:
            self._opened = SchemaRegistry(self._settings)
        return self._opened

    def close(self) -> None:
        """Close connections; the next call opens them anew. Safe to call twice."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def examine(self, stream: Stream, partition: int, records: Sequence[TimedRecord], upto: int) -> Examined:
        """Which of some consecutive records may be taken. Keeps what was met; safe to call twice.

        Raises:
            Unavailable: the registry does not answer, or does not have a schema yet. Rejected: none is configured.
        """
        began = time.monotonic()
        try:
            return self._examined(stream, partition, records, upto)
        except Unavailable as error:  # not asked again for as long as it took: other partitions and leases would wait
            now = time.monotonic()
            self._asked_again, self._away = max(self._asked_again, 2 * now - began), str(error)
            raise

    def _examined(self, stream: Stream, partition: int, records: Sequence[TimedRecord], upto: int) -> Examined:
        if stream.created != self._created:  # another stream of that name has met nothing
            self._created, self._pinned = stream.created, None
            self._readers.clear()
        match stream.spec.schema:
            case "registry":
                return self._by_number(stream, partition, records, upto)
            case "pinned":
                return self._by_pin(stream, partition, records, upto)
        return Examined(records, upto)

    def stop(self, stream: Stream, drift: SeenSchema) -> None:
        """Stops the stream and says why; one that was stopped, paused or removed meanwhile stays so."""
        name = stream.spec.name
        if self._control.streams.get(name).state != "active":
            return
        self._report(stream, drift, "breaking")
        self._control.streams.set_state(name, "stopped", told(name, drift))

    def _report(self, stream: Stream, seen: SeenSchema, outcome: str) -> None:
        name = stream.spec.name
        metrics.SCHEMA_DRIFT.labels(name, outcome).inc()
        detail = {"outcome": outcome, "schema": seen.schema_id, "subject": seen.subject, "version": seen.version,
                  "fingerprint": seen.key, "partition": seen.partition, "offset": seen.offset,
                  "note": seen.note}  # fmt: skip
        LOG.warning("schema_drift", stream=name, **detail)
        self._control.audit.append(stream.spec.owner, "system", "schema.drift", name, self._clock(), detail)

    # --- records that name their schema

    def _by_number(self, stream: Stream, partition: int, records: Sequence[TimedRecord], upto: int) -> Examined:
        if len(self._readers) > self._settings.cached_schemas:
            self._readers.clear()
        numbers = {record.offset: number for record in records if (number := _number(record)) is not None}
        schemas = self._schemas(stream, {n for n in numbers.values() if n not in self._readers})
        for at, record in enumerate(records):
            number = numbers.get(record.offset)
            if record.bad or record.value is None or number in self._readers:
                continue  # what is no record says nothing of a schema, whatever its bytes look like
            if number is None or number not in schemas:
                seen = self._unread(stream, number, partition, record.offset)
            else:
                seen = self._met(stream, schemas[number], partition, record.offset)
            if seen is not None and seen.state == "refused":
                return Examined(records[:at], record.offset, self._decoded, seen)
            if seen is not None and number is not None:
                self._readers[number] = _reader(stream, schemas[number], seen)
        return Examined(records, upto, self._decoded)

    def _unread(self, stream: Stream, number: int | None, partition: int, offset: int) -> SeenSchema | None:
        """Where nothing of the topic was ever read by a schema, the topic is not what it was said to be: it stops. Else
        the record is a bad one."""
        if self._readers:
            return None
        known = self._control.stream_schemas.list(stream.spec.name)
        if any(one.partition >= 0 and one.schema_id and one.state != "refused" for one in known):
            return None
        if any(one.key == UNREAD and one.state == "accepted" for one in known):
            return None
        names = "no schema" if number is None else f"schema {number}, which the registry does not have,"
        seen = SeenSchema(
            UNREAD, "", 0, stream.spec.subject, 0, "refused",
            f"names {names} and none of the topic was read before: do its producers write the schema's number into the"
            " value?", partition, offset, self._clock(),
        )  # fmt: skip
        self._control.stream_schemas.saw(stream.spec.name, seen)
        return seen

    def _decoded(self, _: int, value: bytes) -> bytes:
        number, payload = wire(value)
        if number not in self._readers:
            raise BadRecord("schema", f"the schema registry has no schema {number}: register it, then replay this")
        return self._readers[number](payload)

    def _met(self, stream: Stream, schema: Schema, partition: int, offset: int) -> SeenSchema:
        """How a schema stands with the stream; one that was not met before is judged and reported."""
        name = stream.spec.name
        known = self._control.stream_schemas.list(name)
        if found := next((seen for seen in known if seen.key == schema.fingerprint), None):
            if found.partition < 0:
                self._control.stream_schemas.met(name, found.key, partition, offset, self._clock())
            return replace(found, partition=partition, offset=offset)
        verdict = Verdicts(self._registry, stream.spec, known).of(schema)
        seen = replace(verdict, partition=partition, offset=offset, seen=self._clock())
        if self._control.stream_schemas.saw(name, seen) and seen.state == "seen":
            self._report(stream, seen, "additive")
        return seen

    def _schemas(self, stream: Stream, numbers: Iterable[int]) -> dict[int, Schema]:
        """The schemas of those numbers that the registry has. Raises Unavailable while it may yet get the others."""
        found: dict[int, Schema] = {}
        missing = []
        for number in sorted(numbers):
            try:
                found[number] = self._registry.schema(number)
                self._missing.pop(number, None)
            except NotFound:
                missing.append(number)
        if missing:
            self._believe(stream, missing)
        return found

    def _believe(self, stream: Stream, missing: Sequence[int]) -> None:
        """Nothing, once a registry that knows this topic has lacked the schemas for a while. Raises Unavailable."""
        now = time.monotonic()
        while len(self._missing) >= _MISSING_MOST:
            del self._missing[next(iter(self._missing))]
        late = [n for n in missing if now - self._missing.setdefault(n, now) < self._settings.missing_s]
        if late:
            raise Unavailable(f"the schema registry does not have schema {late[0]} yet", _MISSING_RETRY_S)
        if not self._vouched(stream):
            raise Unavailable(
                f"the schema registry has no schema {missing[0]}, nor those that topic {stream.spec.topic} was read"
                " by: is streams.registry.url right?"
            )

    def _vouched(self, stream: Stream) -> bool:
        """Whether this is the registry that the topic's schemas are in, as far as any are known."""
        known = [seen.schema_id for seen in self._control.stream_schemas.list(stream.spec.name) if seen.schema_id]
        return not known or self._registry.knows(known[-1])

    # --- records that one schema describes

    def _by_pin(self, stream: Stream, partition: int, records: Sequence[TimedRecord], upto: int) -> Examined:
        known = self._control.stream_schemas.list(stream.spec.name)
        pin = next((seen for seen in known if seen.state == "pinned"), None)
        if pin is None:
            raise Rejected(f"stream {stream.spec.name} has no schema: `streams resume --accept-schema` pins the newest")
        accepted = {seen.key for seen in known if seen.state == "accepted"}
        values, bad = self._pin(pin.schema_id), dict[int, BadRecord]()

        def decode(offset: int, value: bytes) -> bytes:
            if offset in bad:
                raise bad[offset]
            return value

        for at, record in enumerate(records):
            if record.bad:
                continue
            try:
                breach, refused = values.examine(parsed(record.value or b""))
            except BadRecord:
                continue  # what is no JSON, or is nothing, says nothing of a schema: the stages refuse it
            if breach is not None and f"{pin.key} {breach.key}" not in accepted:
                drift = self._breach(pin, breach, partition, record.offset)
                self._control.stream_schemas.saw(stream.spec.name, drift)
                return Examined(records[:at], record.offset, decode, drift)
            if refused is not None:
                bad[record.offset] = refused
        return Examined(records, upto, decode)

    def _breach(self, pin: SeenSchema, breach: Breach, partition: int, offset: int) -> SeenSchema:
        note = f"breaks {pin.subject} version {pin.version}: {breach.told}"
        return replace(
            pin, key=f"{pin.key} {breach.key}", name="", schema_id=0, state="refused", note=note,
            partition=partition, offset=offset, seen=self._clock(),
        )  # fmt: skip

    def _pin(self, number: int) -> JsonValues:
        if self._pinned is None or self._pinned[0] != number:
            try:
                self._pinned = number, JsonValues(self._registry.schema(number))
            except NotFound as error:
                raise Unavailable(f"the schema registry does not have the pinned schema {number}") from error
        return self._pinned[1]


def told(stream: str, drift: SeenSchema) -> str:
    """Why a stream stopped, and what to do."""
    where = f"partition {drift.partition}, offset {drift.offset:,}"
    version = f"{drift.subject} version {drift.version}" if drift.version else "no subject that is known"
    what = f"schema {drift.schema_id} ({version})" if drift.schema_id else "the record"
    todo = f"put its producer right, or `intelgraph streams resume {stream} --accept-schema`"
    return f"{where}: {what} {drift.note}; {todo}"


def _number(record: TimedRecord) -> int | None:
    try:
        return None if record.bad or record.value is None else wire(record.value)[0]
    except BadRecord:
        return None


def _reader(stream: Stream, schema: Schema, seen: SeenSchema) -> Callable[[bytes], bytes]:
    """What reads a schema's payloads; of one that an operator accepted and nothing reads, a refusal of each."""
    try:
        return record_of(stream.spec, schema, seen.subject, seen.version)
    except Rejected as error:
        reason = f"schema {schema.id} is not read: {error.reason}"

    def refuse(_: bytes) -> bytes:
        raise BadRecord("schema", reason)

    return refuse
