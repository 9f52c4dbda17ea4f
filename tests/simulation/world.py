"""The core in seeded simulation: one thread, one random source, a fake network, disk and clock.

    World(seed).run()  →  chaos for some hundred turns, then everything heals, then `verify`

Real: the ingest worker with its stages, ShardWriter, its start and healing, floors, readiness, the lake appender,
shard maps, batches. Made here: the log (with an fsync boundary), the lake's table, the shards (memory_shard.py), the
control store, sources and clients.
`planted` names bugs that are switched on to see that the checks find them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from actors.admission import Admission
from actors.connectors.base import Item, Position, RawRecord
from actors.ingest import DeadRecord, IngestWorker
from actors.lake_appender import LakeAppender
from actors.retrying import Backoff
from actors.shard_start import Readiness, Start, start_writer
from actors.shard_writer import ShardWriter
from actors.stages import Origin
from cluster import batch, shard_map, versions
from cluster.config import IngestLimits, LakeSettings, Settings
from cluster.errors import Fenced, Retryable, Unavailable
from cluster.fold import Fold
from cluster.ids import bucket_of
from cluster.model import KIND_NAMES, OP_NAMES, Kind, Op, Record, floor_record, priority_record
from cluster.shard_map import ShardMap
from cluster.stores.lake_positions import Positions
from cluster.stores.log import Append, LogGap
from cluster.stores.shard_export import export_lines, state_lines
from tests.simulation.memory_shard import MemoryShard
from tests.simulation.network import Network
from tests.simulation.shard_process import ShardProcess
from tests.simulation.stores import PARTITIONS, Broken, Clock, Control, SimLake, SimLog
from tests.strategies import make


class WriterActor:
    """One of several that would write a shard; the lease says who. As `ShardWriterLoop`, a turn at a time."""

    def __init__(self, world: World, shard: str, name: str) -> None:
        self.world, self.shard, self.name = world, shard, name
        self.writer: ShardWriter | None = None
        self.start: Start | None = None
        self.readiness: Readiness | None = None

    def crash(self) -> None:
        """The process is gone; what it had in memory too."""
        self.writer = None

    def turn(self) -> None:
        try:
            self._turn()
        except (Retryable, LogGap):
            self.writer = None

    def _turn(self) -> None:
        world, control = self.world, self.world.control
        if self.writer is None:
            token = control.acquire(f"writer/{self.shard}", self.name)
            shard: Any = MemoryShard(world.shards[self.shard], world.network)
            log: Any = world.log
            lake: Any = world.lake
            start = Start(self.shard, control.epochs[self.shard], token, world.router(), shard, log, lambda: lake)
            writer = start_writer(start, world.rnd.randint(1, 4), 1 << 20, 0)
            self.start, self.writer, self.readiness = start, writer, Readiness(start)
            return
        assert self.start is not None
        assert self.readiness is not None
        self.writer.step()
        self.readiness.look(self.writer)
        world.group_offsets[self.shard] = dict(self.writer.positions)
        control.renew(f"writer/{self.shard}", self.start.lease)
        if control.epochs[self.shard] != self.start.epoch:
            raise Fenced("another epoch")


class Crash(Exception):
    """The process dies at a failpoint."""


class SourceActor:
    """The real ingest worker on one source, a batch a turn. It dies at failpoints, and goes on where it committed."""

    def __init__(self, world: World, source: str, records: Sequence[Record | int]) -> None:
        self.world, self.source, self.records = world, source, records
        tenants = frozenset(("acme", "globex"))
        self.origin = Origin(tenants, frozenset((source,)), epoch=1, ours=source.startswith("overlay/"))
        self.limits = IngestLimits()

    def crash(self) -> None:
        return None

    @property
    def at(self) -> int:
        return self.world.control.committed.get(self.source, 0)

    @property
    def done(self) -> bool:
        return self.at >= len(self.records)

    def turn(self) -> None:
        if self.done:
            return
        world = self.world
        log: Any = world.log
        patience = Backoff(1.0, 1.0, 0.0, sleep=lambda seconds: None)
        worker = IngestWorker(world.admission, log, self, self.limits, patience, self._failpoint)
        try:
            worker.run(self, self.origin, 1, (self.at,))
        except (Retryable, Crash):
            return

    def _failpoint(self, name: str) -> None:
        if name == "before append" and "offset before effect" in self.world.planted:
            self.world.control.committed[self.source] = self.at + len(self._batch)
        if self.world.rnd.random() < self.world.network.trouble / 2:
            raise Crash(name)
        if name == "before commit":
            self.world.acknowledged.update(r for r in self._batch if isinstance(r, Record))

    # --- as a source

    def batches(self, after: Position | None, limit_records: int, limit_bytes: int) -> Iterator[list[Item]]:
        assert after is not None
        self._batch = self.records[after[0] : after[0] + self.world.rnd.randint(1, 8)]
        yield [RawRecord((n,), self.world.payload(r)) for n, r in enumerate(self._batch, after[0] + 1)]

    # --- as the place where its progress is kept

    def keep(self, dead: Sequence[DeadRecord]) -> None:
        numbers = {int(d.item.payload.rpartition(b" ")[2]) for d in dead}
        self.world.network.call(lambda: True, lambda: self.world.control.dead_letters.update(numbers), True)

    def commit(self, position: Position, acked: int, dead: int) -> None:
        def effect() -> None:
            self.world.control.committed[self.source] = max(self.at, position[0])

        self.world.network.call(lambda: True, effect, True)


class PushActor:
    """A client of the API: each request has an Idempotency-Key and is repeated until it is acknowledged. The server
    gives it its position once, in the control store's transaction, and appends on every try."""

    def __init__(self, world: World, bodies: Sequence[Record]) -> None:
        self.world, self.bodies, self.at = world, bodies, 0

    def crash(self) -> None:
        return None

    @property
    def done(self) -> bool:
        return self.at >= len(self.bodies)

    def turn(self) -> None:
        if self.done:
            return
        world, body = self.world, self.bodies[self.at]
        key = f"key-{self.at}"
        seen = key in world.control.accepted
        world.control.accepted[key] = self.at
        if not (seen and "seen before effect" in world.planted):
            origin = Origin(frozenset((body.tenant,)), frozenset(("api",)))
            events = world.admission.examine([world.payload(body)], origin)
            placed = world.admission.place(events, origin, 1, [(0,)])
            try:
                world.log.append(placed.entries)
            except Retryable:
                return
        world.acknowledged.add(body)
        self.at += 1


class SystemActor:
    """Floors and priorities, into every partition, until acknowledged."""

    def __init__(self, world: World, records: Sequence[Callable[[int], Record]]) -> None:
        self.world, self.records, self.at = world, records, 0

    def crash(self) -> None:
        return None

    @property
    def done(self) -> bool:
        return self.at >= len(self.records)

    def turn(self) -> None:
        if not self.done and self.world.rnd.random() < 0.05 + self.world.healed:
            try:
                rows = [self.records[self.at](p) for p in range(PARTITIONS)]
                self.world.log.append([Append(p, batch.encode([row]), 1) for p, row in enumerate(rows)])
            except Retryable:
                return
            self.at += 1


class LakeActor:
    """One of two lake appenders."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.appender: LakeAppender | None = None
        self.token = 0

    def crash(self) -> None:
        self.appender = None

    def turn(self) -> None:
        world = self.world
        try:
            if self.appender is None:
                self.token = world.control.acquire("lake", self.name)
                log: Any = world.log
                lake: Any = world.lake
                settings = LakeSettings(commit_s=3.0)
                self.appender = LakeAppender(
                    log, lake, settings, 4, self._holds, self._report, lambda _: None, world.monotonic, world.clock
                )
            self.appender.step()
        except (Retryable, LogGap):  # a gap: another appender was faster and the log is trimmed; begin anew
            self.appender = None

    def _holds(self) -> bool:
        if self.world.rnd.random() < 0.7:  # a zombie finds out late: then the lake has to refuse it
            self.world.control.renew("lake", self.token)
        return True

    def _report(self, reached: Positions) -> None:
        numbers = {p: reached.of(p).number for p in range(PARTITIONS)}
        self.world.control.durable["lake"] = numbers


def event_of(record: Record) -> dict[str, Any]:
    """What a source sends for a record, position included."""
    epoch, position = versions.decode(record.version)
    event: dict[str, Any] = {
        "tenant": record.tenant, "case": record.case, "kind": KIND_NAMES[record.kind], "op": OP_NAMES[record.op],
        "type": record.type, "id": record.id, "source": record.source, "epoch": epoch, "position": list(position),
    }  # fmt: skip
    if record.op == Op.DELETE:
        return event
    if record.kind == Kind.RELATIONSHIP:
        event["from"] = {"type": record.a_type, "id": record.a_id}
        event["to"] = {"type": record.b_type, "id": record.b_id}
    if record.kind == Kind.CLAIM:
        event["subject"] = {"type": record.a_type, "id": record.a_id}
        event["predicate"], event["value"], _ = msgspec.json.decode(record.claim)
    event["props"] = msgspec.json.decode(record.props)
    return event


class World:
    """Everything; see the module."""

    def __init__(self, seed: int, planted: Sequence[str] = (), turns: int = 240, events: int = 100) -> None:
        self.seed, self.turns = seed, turns
        self.rnd = random.Random(seed)
        self.planted = frozenset(planted)
        self.clock = Clock()
        self.network = Network(self.rnd, self.rnd.choice((0.0, 0.03, 0.1)))
        self.log, self.lake = SimLog(self.network), SimLake(self.network)
        names = ["s0", "s1"]
        self.shards = {n: ShardProcess(n, self.planted) for n in [*names, "s2"]}
        self.control = Control(self.clock, shard_map.initial(names, PARTITIONS), dict.fromkeys(names, 1))
        self.changed_map = False
        self.group_offsets: dict[str, dict[int, int]] = {}
        self.acknowledged: set[Record] = set()
        self.ends_at_start: dict[str, dict[int, int]] = {}
        self.healed = False
        self._owned: dict[tuple[int, str], frozenset[int]] = {}
        self.writers = [WriterActor(self, n, f"{n}-{w}") for n in names for w in "ab"]
        self.admission = Admission(Settings(), PARTITIONS, lambda *_: frozenset(), lambda *_: None)
        self.lakes = [LakeActor(self, "a"), LakeActor(self, "b")]
        self._make_sources(events)
        self.paused: dict[int, int] = {}
        for name in names:
            self._register(name)
        self.control.durable["lake"] = dict.fromkeys(range(PARTITIONS), 0)

    def _register(self, name: str) -> None:
        self.control.durable.setdefault(name, {})
        for p in self.control.map.partitions_of(name):
            self.control.durable[name].setdefault(p, 0)

    def _make_sources(self, events: int) -> None:
        numbers = iter(range(1, 10 * events))
        made: dict[str, list[Record | int]] = {"crm": [], "feed": [], "overlay/rank": []}
        for source, rows in made.items():
            for _ in range(events // (2 if source == "crm" else 4)):
                bad = self.rnd.random() < 0.02
                rows.append(next(numbers) if bad else self._event(next(numbers), source))
        bodies = [self._event(next(numbers), "api") for _ in range(events // 8)]
        self.sent = {r for rows in made.values() for r in rows if isinstance(r, Record)} | set(bodies)
        self.bad = {r for rows in made.values() for r in rows if isinstance(r, int)}
        self.sources = [SourceActor(self, source, self._disordered(rows)) for source, rows in made.items()]
        self.push = PushActor(self, bodies)
        self.system = SystemActor(self, self._system_records(events))

    def _disordered(self, rows: list[Record | int]) -> list[Record | int]:
        """A source that sends some records again, and out of order within a window."""
        again = rows + self.rnd.sample(rows, len(rows) // 10)
        order = sorted(range(len(again)), key=lambda i: i + self.rnd.uniform(0, 12))
        return [again[i] for i in order]

    def _event(self, number: int, source: str) -> Record:
        rnd = self.rnd
        tenant, case = rnd.choice(("acme", "globex")), rnd.choice(("c1", "c2", "c3"))
        op = Op.DELETE if rnd.random() < 0.15 else Op.UPSERT
        props = f'{{"n":{number},"tenant_of_it":"{tenant}","p{rnd.randrange(3)}":{number}}}'
        ends = ("person", rnd.choice("abcdef"), "person", rnd.choice("abcdef"))
        if source.startswith("overlay/") or rnd.random() < 0.55:
            return make(tenant, case, Kind.ENTITY, "person", rnd.choice("abcdefgh"), source, number, op, props=props)
        if rnd.random() < 0.8:
            return make(tenant, case, Kind.RELATIONSHIP, "KNOWS", rnd.choice("rstuv"), source, number, op, ends, props)
        claim = f'["age",{number},null]'
        return make(
            tenant, case, Kind.CLAIM, "said", rnd.choice("xyz"), source, number, op, (*ends[:2], "", ""), props, claim
        )

    def _system_records(self, events: int) -> list[Callable[[int], Record]]:
        rnd = self.rnd

        def floor(tenant: str, source: str, type_: str, at: int) -> Callable[[int], Record]:
            return lambda p: floor_record(tenant, source, type_, versions.encode(1, [at]), p)

        def priority(tenant: str, source: str, value: int, revision: int) -> Callable[[int], Record]:
            return lambda p: priority_record(tenant, source, value, revision, p)

        made: list[Callable[[int], Record]] = []
        for revision in range(1, rnd.randint(1, 4)):
            tenant, source = rnd.choice(("acme", "globex")), rnd.choice(("crm", "feed", "overlay/rank"))
            made.append(floor(tenant, source, rnd.choice(("", "person", "KNOWS")), rnd.randrange(events)))
            made.append(priority(tenant, source, rnd.randrange(3), revision))
        return made

    def payload(self, record: Record | int) -> bytes:
        """The event of a record as a source sends it; a number is one that is bad."""
        if isinstance(record, int):
            return f'{{"case": "c1", {record}'.encode()
        event = event_of(record)
        if "version from a clock" in self.planted:
            event["position"] = int(self.clock.now)
        return msgspec.json.encode(event)

    def router(self) -> ShardMap:
        """The shard map as writers see it; planted: whoever seems healthy just now shares all buckets."""
        given = self.control.map
        if "hash modulo the healthy" not in self.planted:
            return given
        healthy = [n for n in given.shards if self.rnd.random() < 0.9] or list(given.shards)
        owners = tuple(healthy[b % PARTITIONS % len(healthy)] for b in range(len(given.owners)))
        return ShardMap(given.revision, given.partitions, owners)

    def monotonic(self) -> float:
        """Seconds that no jump of the clock touches."""
        return float(self.clock.turns)

    # --- the schedule

    def run(self) -> World:
        """Chaos, healing, checks. Raises Broken."""
        for _ in range(self.turns):
            self.clock.tick()
            self._one()
        self._heal()
        self.verify()
        return self

    def _actors(self) -> list[Any]:
        return [*self.writers, *self.writers, *self.sources, self.push, self.system, *self.lakes]

    def _one(self) -> None:
        rnd = self.rnd
        kind = rnd.random()
        if kind < 0.80:
            actor = rnd.choice(self._actors())
            if self.paused.get(id(actor), 0) > 0:
                self.paused[id(actor)] -= 1
            else:
                actor.turn()
        elif kind < 0.85:
            self._save(rnd.choice(sorted(self.control.epochs)))
        elif kind < 0.87:
            self._trim()
        elif kind < 0.90:
            self.network.deliver_one()
        else:
            self._disturb()
        self._look()

    def _disturb(self) -> None:
        rnd = self.rnd
        kind = rnd.randrange(6)
        if kind == 0:
            rnd.choice(self._actors()).crash()
        elif kind == 1:
            self.paused[id(rnd.choice(self._actors()))] = rnd.randint(1, 6)
        elif kind == 2:
            self.clock.now += rnd.choice((-3600.0, 3600.0, -10.0, 60.0))
        elif kind == 3:
            self.restart(rnd.choice(sorted(self.control.epochs)))
        elif kind == 4:
            self.log.up = not self.log.up
        elif not self.changed_map and rnd.random() < 0.15:
            self._add_shard()

    def restart(self, name: str) -> None:
        """A shard's server dies and comes back, older; its epoch is raised before anybody is let in."""
        shard = self.shards[name]
        shard.come_back(self.rnd)
        self.control.epochs[name] += 1
        shard.raise_epoch(self.control.epochs[name])
        self._note_epoch(name)

    def _note_epoch(self, name: str) -> None:
        self.ends_at_start[name] = {p: len(entries) for p, entries in self.log.history.items()}

    def _add_shard(self) -> None:
        self.changed_map = True
        old = self.control.map
        self.control.epochs["s2"] = 0
        new = self.control.map = shard_map.add_shard(old, "s2")
        for name in {n for move in shard_map.plan(old, new) for n in (move.source, move.target)}:
            self.control.epochs[name] += 1
            self._note_epoch(name)
        self._register("s2")
        self.writers += [WriterActor(self, "s2", f"s2-{w}") for w in "ab"]

    def _save(self, name: str) -> None:
        shard = self.shards[name]
        if shard.up:
            mine = self.control.map.partitions_of(name)
            at = shard.save()
            self.control.durable[name] = {p: at.get(p, 0) for p in mine}

    def _trim(self) -> None:
        for p, number in self.control.least().items():
            self.log.trim(p, number + 1)

    def _look(self) -> None:
        """A reader at every shard, and I5 of what is served."""
        for name, shard in self.shards.items():
            m = shard.memory
            named = self.control.epochs.get(name)
            if not m.exists or named is None or not m.cursors:
                continue
            if m.serving != named and "epoch ignored" not in self.planted:
                continue
            for p in self.control.map.partitions_of(name):
                at = m.cursors[p].at if p in m.cursors else 0
                if at < self.ends_at_start.get(name, {}).get(p, 0):
                    raise Broken(f"{name} serves partition {p} at {at}: stale as fresh")
            if not m.owned <= self.owned_by(name) and "epoch ignored" not in self.planted:
                raise Broken(f"{name} serves buckets that are not its own")

    def owned_by(self, name: str) -> frozenset[int]:
        """The buckets that the map gives a shard."""
        key = (self.control.map.revision, name)
        if key not in self._owned:
            self._owned[key] = frozenset(self.control.map.buckets_of(name))
        return self._owned[key]

    def _heal(self) -> None:
        self.healed, self.network.trouble, self.log.up = True, 0.0, True
        while self.network.delayed:
            self.network.deliver_one()
        for shard in self.shards.values():
            shard.up = True
        for _ in range(3000):
            self.clock.tick()
            for actor in self._actors():
                actor.turn()
            self._look()
            if self._is_quiet():
                return
        raise Broken("it does not heal: cursors stand still")

    def _is_quiet(self) -> bool:
        senders: list[Any] = [*self.sources, self.push, self.system]
        if not all(sender.done for sender in senders):
            return False
        for name in self.control.epochs:
            m = self.shards[name].memory
            if m.serving != self.control.epochs[name]:
                return False
            for p in self.control.map.partitions_of(name):
                if p not in m.cursors or m.cursors[p].at < len(self.log.history[p]):
                    return False
        return all(self.lake.at.of(p).number == len(entries) for p, entries in self.log.history.items())

    # --- the checks

    def verify(self) -> None:
        """I1 to I7 against the sequential fold. Raises Broken."""
        truth = self.log.truth()
        facts = {r for r in truth if r.kind < Kind.FLOOR}
        self._hold(self.acknowledged <= facts, "I1: acknowledged and lost")
        self._hold(facts <= self.sent, "I1: applied and never sent")
        self._hold(self.sent <= facts, "I7: accepted, and neither applied nor a dead letter")
        self._hold(self.control.dead_letters == self.bad, "I7: dead letters")
        system = [make_it(0) for make_it in self.system.records]
        fold = Fold().apply_all([*sorted(self.sent), *system])
        shards: list[Any] = [MemoryShard(self.shards[n], self.network) for n in self.control.epochs]
        self._hold(export_lines(shards) == fold.export_lines(), "I2, I3, I4: the export differs from the fold's")
        self._hold(state_lines(shards) == fold.state_lines(), "I2, I3, I4: the state differs from the fold's")
        self._owners()
        kept = [r for rows in self.lake.kept.values() for e in rows for r in batch.from_arrow(e.batch)]
        self._hold(kept == truth, "the lake differs from the log")
        if not self.changed_map:
            self._outcomes(truth)

    def _owners(self) -> None:
        places: dict[tuple[str, str], list[str]] = {}
        for name in self.control.epochs:
            m = self.shards[name].memory
            self._hold(m.owned == frozenset(self.control.map.buckets_of(name)), f"I5: {name} owns other buckets")
            for case in {t[:2] for t in m.facts} | {k[0][:2] for k in m.overlays}:
                places.setdefault(case, []).append(name)
            for thing, (stored, _) in m.facts.items():
                for r in stored.registers.values():
                    mine = r.op == Op.DELETE or f'"tenant_of_it":"{thing[0]}"' in r.props
                    self._hold(mine, "I6: a record crossed a tenant")
        for case, names in places.items():
            owner = self.control.map.owners[bucket_of(*case)]
            self._hold(names == [owner], f"I5: {case} lies on {names}, its owner is {owner}")

    def _outcomes(self, truth: Sequence[Record]) -> None:
        for name in self.control.epochs:
            m = self.shards[name].memory
            mine = sum(r.kind < Kind.FLOOR and self.control.map.owners[r.bucket] == name for r in truth)
            counted = sum(c.applied + c.duplicate + c.stale for c in m.cursors.values())
            self._hold(mine == counted == sum(map(sum, m.counts.values())), "an outcome was counted twice or never")

    def _hold(self, what: bool, message: str) -> None:
        if not what:
            raise Broken(f"seed {self.seed}: {message}")


__all__ = ["Broken", "Unavailable", "World"]
