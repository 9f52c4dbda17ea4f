"""The audit on a real log, two real shards and real loads: it holds through what happens, and sees what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.connectors import mapping_from_pairs
from actors.dead_letters import Replay
from actors.loads import FileLoads, LoadFile
from actors.push import Push
from actors.shard_writer import ShardWriter
from actors.stages.records import restamped
from actors.undo import Undo
from cluster import batch, versions
from cluster.config import IngestLimits, LogSettings, RecordLimits, Settings
from cluster.embedded import Running, operator
from cluster.errors import Forbidden
from cluster.ids import BUCKETS
from cluster.model import Record
from cluster.shard_map import ShardMap, initial, repartition
from cluster.stores.control import open_control
from cluster.stores.control_dead_letters import LetterPlace
from cluster.stores.falkor import FalkorClient
from cluster.stores.falkor_shard import FalkorShard
from cluster.stores.graph import Fence, WriteCounts
from cluster.stores.lake import Lake, LakeEntry, Positions
from cluster.stores.lake_address import LakeAddress
from cluster.stores.log import Append, Generation, LogGap, Seam
from cluster.stores.redis_address import RedisAddress
from cluster.stores.redis_log import open_redis_log
from serve_apps.cli.conservation import Balance, audit
from serve_apps.cli.log_counts import Counted, count
from tests.strategies import make

PARTITIONS = 2
SETTINGS = Settings(
    ingest=IngestLimits(batch_records=5, retry_first_s=0.01, retry_most_s=0.05, retry_deadline_s=5),
    log=LogSettings(partitions=PARTITIONS, timeout_s=5.0, block_ms=50),
)


class Crash(Exception):
    pass


class Books:
    """What the audit asks, over a system of one process whose shards apply the log when they are told to."""

    def __init__(self, log_server: Running, falkor_server: Running, name: str, folder: Path) -> None:
        self.settings, self.state_dir, self._files = SETTINGS, folder, 0
        self.control = open_control(f"sqlite:///{folder / 'control.db'}")
        self.control.sources.register("acme", "hr", 1.0)
        address = RedisAddress(socket=str(log_server.socket), password=log_server.password)
        names = ("shard-0", "shard-1")
        owners = tuple(names[bucket // PARTITIONS % 3 > 0] for bucket in range(BUCKETS))  # one third and two thirds
        self.map: ShardMap = replace(initial(names, PARTITIONS), owners=owners)
        self._open = partial(open_redis_log, address, namespace=name)
        self.log = self._open(SETTINGS.log)
        lake = LakeAddress(folder / "lake", SETTINGS.lake)
        self.stack = SimpleNamespace(current_map=lambda: self.map, lake_address=lake)
        self.shards: dict[str, FalkorShard] = {}
        self.writers: dict[str, ShardWriter] = {}
        for shard_id in names:
            client = FalkorClient(f"unix://{falkor_server.socket}", falkor_server.password, graph=f"{name}-{shard_id}")
            shard = self.shards[shard_id] = FalkorShard(client)
            shard.prepare()
            shard.raise_epoch(1)
            shard.own(1, self.map.buckets_of(shard_id))
            self._write(shard_id, 1)

    def _write(self, shard_id: str, lease: int) -> None:
        shard, fence = self.shards[shard_id], Fence(1, lease, self.map.partitions_of(shard_id))
        shard.take_lease(fence)
        owned = frozenset(self.map.buckets_of(shard_id))
        self.writers[shard_id] = ShardWriter(shard, self.log, fence, owned.__contains__, block_ms=0)

    def repartition(self, partitions: int) -> None:
        """The log gets another number of partitions."""
        self.map = repartition(self.map, partitions)
        settings = SETTINGS.log.model_copy(update={"partitions": partitions})
        ends = {**dict.fromkeys(range(partitions), 0), **self.log.ends()}
        self.log.close()
        with closing(self._open(settings, mending=True)) as log:
            seams = {p: Seam(end, end, end) for p, end in ends.items()}
            log.begin_generation(Generation(log.identity.generation + 1, seams, partitions))
            log.finish_generation()
        self.log = self._open(settings)
        for shard_id in self.shards:
            self._write(shard_id, self.log.identity.generation)

    def audit(self) -> Balance:
        for writer in self.writers.values():
            while writer.step():
                pass
            writer.flush()
        return audit(self, 1.0)  # type: ignore[arg-type]

    def file(self, lines: Iterable[Any], name: str = "", **fields: Any) -> LoadFile:
        self._files += 1
        path = self.state_dir / (name or f"{self._files}.jsonl")
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return LoadFile(path, "acme", fields.pop("source", "hr"), **fields)

    def ingest(self, file: LoadFile, settings: Settings = SETTINGS, crash: str = "", nth: int = 1) -> Any:
        left = [nth]

        def at(step: str) -> None:
            left[0] -= step == crash
            if step == crash and left[0] == 0:
                raise Crash

        return FileLoads(self.control, self.log, settings, failpoint=at).ingest(file).load

    def append(self, record: Record) -> int:
        partition = record.bucket % PARTITIONS
        return self.log.append([Append(partition, batch.encode([record]), 1)])[0]

    def logged(self) -> list[Record]:
        entries = [(p, e) for p, end in self.log.ends().items() if end for e in self.log.read(p, 0, 1000, 1 << 24)]
        return [record for _, entry in entries for record in batch.decode(entry.data)]

    def to_lake(self, upto: int) -> None:
        """Gives the first entries of each partition to a lake."""
        entries = [
            LakeEntry(p, entry.number, batch.decode_arrow(entry.data))
            for p, end in self.log.ends().items() if end
            for entry in self.log.read(p, 0, upto, 1 << 24) if entry.number <= upto
        ]  # fmt: skip
        with Lake.open(self.state_dir / "lake") as lake:
            lake.append(entries, Positions(self.log.identity.name, self.log.identity.generation))

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()
        self.log.close()
        self.control.close()


@pytest.fixture
def books(log_server: Running, falkor_server: Running, unique: str, tmp_path: Path) -> Iterator[Books]:
    made = Books(log_server, falkor_server, unique, tmp_path)
    yield made
    made.close()
    with operator(falkor_server.spec) as server:
        server.delete(*(f"{unique}-{name}" for name in made.shards))


def person(number: int, **fields: Any) -> dict[str, Any]:
    event = {"case": f"c{number % 7}", "kind": "entity", "op": "upsert", "type": "person", "id": f"p{number}"}
    return {**event, "props": {"n": number}, **fields}


MIXED = [*(person(n) for n in range(12)), "{not json", person(90, source="other"), *(person(n) for n in range(12, 20))]


def wrong(found: Balance) -> dict[str, list[Any]]:
    """What does not hold, by kind."""
    kinds = ("partitions", "shards", "epochs", "loads")
    return {k: [row for row in getattr(found, k) if not row.holds] for k in kinds if not all(
        row.holds for row in getattr(found, k))}  # fmt: skip


# --- it holds


@pytest.mark.services
@pytest.mark.parametrize("step", ["before append", "after append", "before commit", "committed"])
@pytest.mark.parametrize("nth", [1, 3])
def test_it_holds_for_a_load_that_was_cut_off_and_for_what_it_appended_twice(books: Books, step: str, nth: int) -> None:
    file = books.file(MIXED)
    with pytest.raises(Crash):
        books.ingest(file, crash=step, nth=nth)
    assert wrong(books.audit()) == {}
    books.ingest(file)
    books.ingest(file)  # and all of it once more
    found = books.audit()
    assert wrong(found) == {}
    (row,) = found.loads
    assert (row.loads, row.acked, row.dead, row.logged, row.letters) == (2, 40, 4, 20, 2)
    assert sum(epoch.logged for epoch in found.epochs) == 40 + (0 if step in ("before append", "committed") else 5 - (
        nth == 3) * 2)  # fmt: skip
    assert sum(s.records for s in found.shards) == sum(p.found for p in found.partitions)
    assert len({s.records for s in found.shards}) == 2


@pytest.mark.services
def test_what_the_log_lets_go_meanwhile_is_counted_in_the_lake(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.ingest(books.file(MIXED))
    before, read, log = books.audit(), books.log.read, books.log
    gone = list[int]()

    def late(partition: int, after: int, *limits: int) -> Any:
        if not gone:
            gone.append(partition)
            monkeypatch.setattr(log, "read", read)
            books.to_lake(1000)
            for each, end in log.ends().items():
                log.trim(each, end)
        return read(partition, after, *limits)

    monkeypatch.setattr(log, "read", late)
    found = books.audit()
    assert (len(gone), found.holds, wrong(found)) == (1, True, {})
    assert found.partitions == before.partitions


@pytest.mark.services
@pytest.mark.parametrize("kept", [0, 1])
def test_what_neither_log_nor_lake_has_is_said_to_be_gone(books: Books, kept: int) -> None:
    books.ingest(books.file(MIXED))
    books.audit()
    if kept:
        books.to_lake(kept)
    for partition, end in books.log.ends().items():
        books.log.trim(partition, end)
    with pytest.raises(LogGap, match="trimmed"):
        books.audit()


@pytest.mark.services
@pytest.mark.parametrize("numbers", [(4,), (3,), (3, 2)], ids=str)
def test_a_record_that_is_in_partitions_of_before_and_of_now_is_one(books: Books, numbers: tuple[int, ...]) -> None:
    file = books.file(MIXED)
    books.ingest(file)
    books.to_lake(1)
    for number in numbers:
        books.repartition(number)
        books.ingest(file)
        found = books.audit()
        assert wrong(found) == {}
        (row,) = found.loads
        assert (row.logged, len(found.partitions)) == (20, max(2, *numbers[: numbers.index(number) + 1]))
    assert sum(s.records for s in found.shards) == 20 * (1 + len(numbers))


@pytest.mark.services
def test_it_holds_for_killed_sources_undone_loads_pushes_and_own_positions(books: Books) -> None:
    first, second = books.ingest(books.file(MIXED)), books.ingest(books.file([person(n, props={}) for n in range(9)]))

    def kill(step: str) -> None:
        if step == "after append":
            books.control.sources.kill("acme", "crm")

    killed = books.file([person(n) for n in range(12)], source="crm")
    with pytest.raises(Forbidden):
        FileLoads(books.control, books.log, SETTINGS, failpoint=kill).ingest(killed)
    Push(books.control, books.log, SETTINGS).push(
        "acme", ["hr"], json.dumps([person(3), person(50)]).encode(), "application/json", "k", "hr"
    )
    books.ingest(books.file([person(n, position=n) for n in (1, 2, 2, 3)], source="feed"))
    books.to_lake(1)
    assert wrong(books.audit()) == {}
    lake = SimpleNamespace(events=lambda tenant, source: (r for r in books.logged() if r.source == source))
    assert Undo(books.control, books.log, lake, SETTINGS).undo("acme", second.id, "ann").said_again > 0
    books.ingest(books.file([person(n, props={}) for n in range(9)]))  # the undone content in a new epoch
    found = books.audit()
    assert wrong(found) == {}
    states = {load.id: load.state for load in books.control.loads.list("acme")}
    assert (states[first.id], states[second.id], list(states.values()).count("running")) == ("done", "undone", 1)
    assert [(row.source, row.epoch is None) for row in found.loads].count(("feed", True)) == 1


@pytest.mark.services
def test_it_holds_for_replayed_events_and_rows_and_for_letters_that_another_reading_took(books: Books) -> None:
    least = SETTINGS.model_copy(update={"records": RecordLimits(property_names_per_tenant=1)})
    events = books.file([person(1), *(person(n, props={"z": n}) for n in range(2, 6))])
    assert books.ingest(events, least).dead == 4
    replay = Replay(books.control, books.log, SETTINGS, sleep=lambda s: None)
    assert replay.replay("acme", "ann", limit=2).count("replayed") == 2
    assert wrong(books.audit()) == {}
    assert books.ingest(events).dead == 0
    pairs = ["1.type=person", "1.id={mail}", "2.type=person", "2.id={name}"]
    rows = [json.dumps({"mail": mail, "name": name}) for mail, name in (("a", "b"), ("", "c"), ("d", "e"))]
    assert books.ingest(books.file(rows, mapping=mapping_from_pairs(pairs), case="c1")).dead == 1
    assert wrong(books.audit()) == {}
    corrected = mapping_from_pairs(["1.type=person", "1.id={name}", "2.type=company", "2.id={name}"])
    assert replay.replay("acme", "ann", mapping=corrected).count("replayed") == 1
    found = books.audit()
    assert wrong(found) == {}
    assert [(row.logged, row.replayed, row.letters) for row in found.loads] == [(5, 4, 4), (6, 2, 1)]


# --- it sees what is wrong


def acked_more(books: Books) -> None:
    """A load acknowledged a record that the log does not have."""
    load = books.control.loads.list("acme")[0]
    with books.control.database.write() as connection:
        connection.exec_driver_sql("UPDATE loads SET acked = acked + 1 WHERE id = ?", (load.id,))


def logged_more(books: Books) -> None:
    """The log has a record at a position of the load's that its file does not have."""
    record = next(r for r in books.logged() if r.source == "hr")
    books.append(restamped(record, versions.encode(versions.epoch_of(record.stamp), [1 << 40])))


def two_at_one_position(books: Books) -> None:
    """One position was given to two records."""
    record = next(r for r in books.logged() if r.source == "hr")
    books.append(record._replace(id="another"))


def letter_lost(books: Books) -> None:
    """A dead letter is gone."""
    with books.control.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM dead_letters WHERE sequence = 1")


def skipped(books: Books) -> None:
    """A shard's cursor moved over an entry that it did not apply."""
    record = make("acme", "c1", 0, "person", "lost", "crm", 5)
    number = books.append(record)
    for writer in books.writers.values():
        writer.jump(record.bucket % PARTITIONS, number, WriteCounts())


def counted_twice(books: Books) -> None:
    """A shard counted a record's outcome once more, with the cursor: it adds up in the shard."""
    record = next(r for r in books.logged() if r.source == "hr")
    number = books.append(record)
    partition, owner = record.bucket % PARTITIONS, books.map.owners[record.bucket]
    for name, writer in books.writers.items():
        counts = WriteCounts()
        for _ in range(2 if name == owner else 0):
            counts.count(record, 1)  # type: ignore[arg-type]
        writer.jump(partition, number, counts)


def of_another_source(books: Books) -> None:
    """A shard counted a record under another source: shards and partitions add up, the epochs do not."""
    record = next(r for r in books.logged() if r.source == "hr")
    number = books.append(record)
    for name, writer in books.writers.items():
        counts = WriteCounts()
        if name == books.map.owners[record.bucket]:
            counts.count(record._replace(source="crm"), 1)  # type: ignore[arg-type]
        writer.jump(record.bucket % PARTITIONS, number, counts)


def lake_lost_rows(books: Books) -> None:
    """A file of the lake lost rows, and its positions tell of them still."""
    books.to_lake(1)
    import polars as pl

    path = next((books.state_dir / "lake").rglob("*.parquet"))
    pl.read_parquet(path).head(-1).write_parquet(path)


@pytest.mark.services
@pytest.mark.parametrize(
    ("plant", "seen", "unexplained"),
    [
        (acked_more, {"loads"}, -1),
        (logged_more, {"loads"}, 1),
        (two_at_one_position, {"loads"}, 1),
        (letter_lost, {"loads"}, -1),
        (skipped, {"partitions", "epochs"}, None),
        (counted_twice, {"partitions", "epochs"}, None),
        (of_another_source, {"epochs"}, None),
        (lake_lost_rows, {"partitions", "epochs", "loads"}, -1),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_missing_or_too_many_is_seen_where_it_is(
    books: Books, plant: Callable[[Books], None], seen: set[str], unexplained: int | None
) -> None:
    books.ingest(books.file(MIXED))
    assert wrong(books.audit()) == {}
    plant(books)
    found = books.audit()
    assert not found.holds
    assert set(wrong(found)) == seen
    if unexplained is not None:
        assert [row.unexplained for row in wrong(found)["loads"]] == [unexplained]


# --- counting


def test_records_are_counted_by_epoch_with_letters_and_undos_apart() -> None:
    import polars as pl

    def at(epoch: int, *position: int, id: str = "a") -> Record:
        return restamped(make("t", "c", 0, "person", id, "s", 1), versions.encode(epoch, position))

    big = 2**64 - 1
    records = [
        at(1, 7), at(1, 7), at(1, 8), at(1, 9, 1), at(1, 9, 2), at(1, 90), at(1, big, 4), at(big, big - 1), at(0, 0),
    ]  # fmt: skip
    rows = pl.DataFrame(pl.from_arrow(batch.to_arrow(records)))
    letters = [LetterPlace("t", "s", versions.encode(1, p)) for p in ((8,), (9,), (7, 1))]
    letters += [LetterPlace("t", "other", versions.encode(1, [7])), letters[0]]
    assert count(rows, letters) == {
        ("t", "s", 1): Counted(7, 5, 3), ("t", "s", big): Counted(1, 1, 0), ("t", "s", 0): Counted(1, 1, 0),
    }  # fmt: skip
    assert count(rows.head(0), letters) == {}
