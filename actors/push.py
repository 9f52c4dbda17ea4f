"""Push: batches over HTTP into the log. The core; serve_apps/api does the talking.

    body → records → stages → positions → append → answer

Everything of a push comes from the body, its token and its Idempotency-Key: a retry gets the same positions, so what
was appended already is a duplicate. Of several with one key at the same moment one is at work and the others wait for
its answer, which is theirs too. The answer is given when what was accepted is durable, and names each bad record: no
dead letters are made of a push, since its sender is there to be told.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import msgspec

from actors.admission import Admission, Clock, Prepared, open_admission
from actors.retrying import Backoff
from actors.stages import Bad, Enrichers, Origin, Slot
from actors.stages.bad import bad_of
from actors.stages.records import Positions, mode_of
from cluster.config import Settings
from cluster.errors import (
    BadRecord,
    Conflict,
    Forbidden,
    IntelGraphError,
    KeyReused,
    NotFound,
    OutcomeUnknown,
    Rejected,
    TooLarge,
)
from cluster.model import Event, from_outside
from cluster.stores.control import ControlStore
from cluster.stores.control_acceptance import IdempotencyMismatch
from cluster.stores.files import Failpoint, no_failpoint
from cluster.stores.log import EventLog

ALL_SOURCES = "*"
_LOOK_FIRST_S, _LOOK_MOST_S = 0.02, 0.2
_array = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record of a push that was not taken.

    Args:
        index: from 0, in the order of the body.
        error_class: one of `cluster.errors.ERROR_CLASSES`.
    """

    index: int
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class PushAnswer:
    """What became of a push, once what was accepted is durable in the log.

    Args:
        accepted: records that are in the log.
        positions: log partition → number of the last entry that holds some of them.
        replayed: the same key and body came before: this is the answer of that time.
    """

    accepted: int
    positions: Mapping[int, int]
    rejected: Sequence[RejectedRecord] = ()
    replayed: bool = False


class Push:
    """Takes pushes. Several threads may use an instance; the stages run one push at a time.

    Args:
        clock: seconds since 1970; only ever used to forget old keys, and to take over those of the dead.
        failpoint: called with `claimed`, `placed`, `appended`.
    """

    def __init__(
        self,
        control: ControlStore,
        log: EventLog,
        settings: Settings,
        enrichers: Enrichers | None = None,
        clock: Clock = time.time,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._control, self._log, self._limits, self._clock = control, log, settings.ingest, clock
        self._failpoint = failpoint
        self._admission: Admission = open_admission(control, settings, log.identity.partitions, enrichers)
        self._stages = threading.Lock()
        limits = settings.ingest
        self._backoff = Backoff(limits.retry_first_s, limits.retry_most_s, limits.push_deadline_s)
        self._waiting = Backoff(_LOOK_FIRST_S, _LOOK_MOST_S, limits.push_wait_s)

    def push(
        self,
        tenant: str,
        sources: Sequence[str],
        body: bytes,
        content_type: str,
        idempotency_key: str | None,
        source: str | None = None,
    ) -> PushAnswer:
        """Checks, routes and appends; returns once that is durable. Safe to repeat with an Idempotency-Key.

        Args:
            tenant: of the token. A record that names another is rejected.
            sources: that the token may write; `*`: all that the tenant has registered.
            content_type: `application/json` (an array, or one event) or `application/x-ndjson`.
            source: of records that name none.

        Raises:
            TooLarge: too many bytes or records. KeyReused: the key came with another body. BadRecord: the body cannot
            be read. Conflict: another push with this key is at work. Overloaded, Unavailable: nothing is known to be
            taken; try again.
        """
        payloads = payloads_of(body, content_type, self._limits.http_body_bytes, self._limits.http_batch_records)
        origin = Origin(frozenset({tenant}), self._sources(tenant, sources), source)
        body_hash = hashlib.sha256(body + b"\x00" + (source or "").encode()).hexdigest()
        if idempotency_key is None:
            return self._take(payloads, origin, tenant, None, body_hash)
        key = self._key(tenant, sources, idempotency_key)
        return self._once(tenant, key, body_hash, lambda: self._take(payloads, origin, tenant, key, body_hash))

    def _take(self, payloads: list[bytes], origin: Origin, tenant: str, key: str | None, body_hash: str) -> PushAnswer:
        with self._stages:
            events = self._admission.examine(payloads, origin)
            batch = self._placed(events, origin, tenant, key, body_hash)
        self._failpoint("placed")
        answer = self._append(batch)
        self._failpoint("appended")
        return answer

    def _once(self, tenant: str, key: str, body_hash: str, take: Callable[[], PushAnswer]) -> PushAnswer:
        """`take()` by one at a time; all who come with the key get the first answer that is kept."""
        holder = uuid.uuid4().hex
        earlier = self._waiting.call(lambda: self._claimed(tenant, key, body_hash, holder))
        if earlier is not None:
            return earlier
        self._failpoint("claimed")
        try:
            answer = take()
            mine = _to_json(answer)
            kept = self._control.pushes.keep(tenant, key, mine, self._limits.idempotency_answer_bytes)
        except BaseException:
            with suppress(IntelGraphError):  # then its time runs out
                self._control.pushes.release(tenant, key, holder)
            raise
        return answer if kept == mine else _from_json(kept)

    def _claimed(self, tenant: str, key: str, body_hash: str, holder: str) -> PushAnswer | None:
        """The key's answer; None: it has none, and the key is this holder's. Raises Conflict while it is another's."""
        claim_s = self._limits.push_claim_s
        try:
            claim = self._control.pushes.claim(
                tenant, key, body_hash, holder, claim_s, self._clock(), self._limits.idempotency_keys
            )
        except IdempotencyMismatch as error:
            raise KeyReused("the Idempotency-Key came before with another body; use a new key for it") from error
        if claim.wait_s > 0:
            raise Conflict("another push with this Idempotency-Key is at work; send the same again", claim.wait_s)
        return None if claim.answer is None else _from_json(claim.answer)

    def _sources(self, tenant: str, sources: Sequence[str]) -> frozenset[str]:
        if ALL_SOURCES not in sources:
            return frozenset(sources)
        return frozenset(found.name for found in self._control.sources.list(tenant) if from_outside(found.name))

    def _key(self, tenant: str, sources: Sequence[str], key: str) -> str:
        """What the key is kept under: two senders of a tenant, with tokens for other sources, may use the same key."""
        if not 1 <= len(key) <= 256:
            raise Rejected("Idempotency-Key: 1 to 256 characters")
        return hashlib.sha256(json.dumps([tenant, sorted(sources), key]).encode()).hexdigest()

    def _placed(
        self, events: list[Slot[Event]], origin: Origin, tenant: str, key: str | None, body_hash: str
    ) -> Prepared:
        """Records at their positions. A source gives them for the whole body, so that they depend on its bytes only."""
        slots, groups = list(events), dict[str, list[int]]()
        given: dict[str, tuple[int, int] | Bad] = {}
        for index, slot in enumerate(events):
            source = ""
            if type(slot) is Event:
                source = slot.source or ""
                mode = mode_of(slot)
                name = f"{mode} {source}"
                if name not in given:
                    given[name] = self._given(tenant, source, mode, key, body_hash, len(events))
                if isinstance(refused := given[name], Bad):
                    slots[index] = refused
            groups.setdefault(source, []).append(index)
        batches: list[tuple[list[int], Prepared]] = []
        for source, indexes in groups.items():
            found = given.get(f"assigned {source}", (0, 0))
            epoch, first = (0, 0) if isinstance(found, Bad) else found
            positions = [(first + index,) for index in indexes]
            placed = self._admission.place([slots[index] for index in indexes], origin, epoch, positions)
            batches.append((indexes, placed))
        return _joined(batches)

    def _given(
        self, tenant: str, source: str, mode: Positions, key: str | None, body_hash: str, count: int
    ) -> tuple[int, int] | Bad:
        """Epoch and first position for a source's records; for those with their own, only whether it may write."""
        try:
            if mode == "own":
                if self._control.sources.get(tenant, source).state != "active":
                    return Bad("policy", f"source {source!r} is killed: nothing of it is accepted")
                return 0, 0
            most = self._limits.idempotency_positions
            given = self._control.acceptance.accept(tenant, source, key, body_hash, count, self._clock(), most)
        except IdempotencyMismatch as error:
            raise KeyReused(error.reason) from error
        except BadRecord as error:
            return bad_of(error)
        except (NotFound, Forbidden) as error:
            return Bad("policy", error.reason)
        return given.epoch, given.first_position

    def _append(self, batch: Prepared) -> PushAnswer:
        numbers = self._sent(batch)
        positions: dict[int, int] = {}
        for entry, number in zip(batch.entries, numbers, strict=True):
            positions[entry.partition] = max(number, positions.get(entry.partition, 0))
        rejected = tuple(RejectedRecord(index, bad.error_class, bad.reason) for index, bad in batch.bad())
        return PushAnswer(batch.good, positions, rejected)

    def _sent(self, batch: Prepared) -> list[int]:
        try:
            return self._log.append(batch.entries)
        except OutcomeUnknown:  # the same entries again are harmless, and the sender need not know
            return self._backoff.call(lambda: self._log.append(batch.entries))


def payloads_of(body: bytes, content_type: str, body_bytes: int, records: int) -> list[bytes]:
    """The records of a body, undecoded.

    Raises:
        TooLarge: too many bytes or records. BadRecord: it is no array and no object, or of another content type.
    """
    if len(body) > body_bytes:
        raise TooLarge(f"the body is over {body_bytes:,} bytes; send several smaller batches")
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/x-ndjson", "application/jsonl", "application/x-jsonlines"):
        found = [line for line in body.split(b"\n") if line and not line.isspace()]
    elif kind == "application/json":
        found = _items(body)
    else:
        raise BadRecord("decode", f"content type {kind[:80]!r}: send application/json or application/x-ndjson")
    if len(found) > records:
        raise TooLarge(f"{len(found):,} records; send at most {records:,} at once")
    return found


def _items(body: bytes) -> list[bytes]:
    if not body.lstrip().startswith(b"["):
        return [body]
    try:
        return [bytes(item) for item in _array.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord("decode", f"the body is no JSON array: {error}") from error


def _joined(batches: Sequence[tuple[list[int], Prepared]]) -> Prepared:
    records = [slot for _, (_, slots, _) in batches for slot in slots]
    places = [index for indexes, _ in batches for index in indexes]
    ordered = [slot for _, slot in sorted(zip(places, records, strict=True), key=lambda pair: pair[0])]
    entries = [entry for _, batch in batches for entry in batch.entries]
    return Prepared(entries, ordered, sum(batch.good for _, batch in batches))


def _to_json(answer: PushAnswer) -> dict[str, object]:
    return {"accepted": answer.accepted, "positions": {str(p): n for p, n in answer.positions.items()},
            "rejected": [asdict(record) for record in answer.rejected]}  # fmt: skip


def _from_json(kept: Mapping[str, object]) -> PushAnswer:
    found = msgspec.convert(kept, PushAnswer, strict=False)
    return replace(found, replayed=True)
