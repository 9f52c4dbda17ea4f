"""Captures the golden corpus anew: real changes in PostgreSQL, as Debezium's connector wrote them into Kafka.

    python -m tests.cdc.capture [FOLDER of services]

Starts PostgreSQL, Kafka and Connect (`services/`) on a fresh folder, makes the tables of configs/cdc/postgres.sql, runs
the steps below under two connectors, one that sends schemas and one that does not, and writes every record of the three
tables to `corpus/plain.jsonl` and `corpus/schemas.jsonl`: {topic, partition, offset, key, value}, null for a tombstone.
`corpus/final.jsonl` is what the tables hold in the end. LSNs and times differ from run to run; nothing else should.
"""

# ruff: noqa: S608 - statements are made of this file's own constants

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.catalogue import CATALOGUE
from services.runner import Services
from services.spec import Running

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
TABLES = ("entities", "relationships", "claims")
KINDS = {"plain": False, "schemas": True}
_WAIT_S = 60.0


class Session:
    """One session of psql: statements of several of them can overlap."""

    def __init__(self, server: Running) -> None:
        uri = server.address.replace("//", f"//{server.details['user']}@")
        environment = {**os.environ, "PGPASSWORD": server.details["password"]}
        command = ["psql", "-qAt", "-v", "ON_ERROR_STOP=1", uri]
        pipe = subprocess.PIPE
        self._psql = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def run(self, statements: str) -> str:
        """What they print; waits for their end."""
        assert self._psql.stdin and self._psql.stdout
        self._psql.stdin.write(f"{statements};\n\\echo --done--\n")
        self._psql.stdin.flush()
        lines = []
        while (line := self._psql.stdout.readline()) != "--done--\n":
            if not line:
                raise SystemExit(f"psql has ended; it was running:\n{statements}")
            lines.append(line)
        return "".join(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._psql.stdin and self._psql.stdout
        self._psql.stdin.close()
        self._psql.wait()
        self._psql.stdout.close()


def entity(id: str, props: str, case: str = "c-1", tenant: str = "acme") -> str:
    """An INSERT."""
    return f"INSERT INTO entities VALUES ('{tenant}', '{case}', 'person', '{id}', '{props}', '2026-01-31T12:00:00Z')"


def relationship(id: str, a: str, b: str) -> str:
    """An INSERT."""
    return (
        f"INSERT INTO relationships VALUES ('acme', 'c-1', 'KNOWS', '{id}', 'person', '{a}', 'person', '{b}', '{{}}')"
    )


def claim(id: str, subject: str, value: str) -> str:
    """An INSERT."""
    rest = f"'person', '{subject}', 'lives-in', '{value}', 0.75"
    return f"INSERT INTO claims VALUES ('acme', 'c-1', 'statement', '{id}', {rest})"


BEFORE = [
    entity(
        "ada", '{"name": "Ada", "score": 1.0, "rank": 1, "seen": true, "tags": ["x", "y"], "deep": {"a": [1, null]}}'
    ),
    entity("bob", '{"name": "Bob"}'),
    entity("eve", '{"v": 0}'),
    relationship("r1", "ada", "bob"),
    claim("k1", "ada", '"Paris"'),
]
"""There before the connectors start: the initial snapshot."""


def changes(first: Session, second: Session) -> None:
    """Changes while the connectors follow."""
    first.run(
        f"BEGIN; {entity('cid', '{}')}; {relationship('r2', 'ada', 'cid')}; {claim('k2', 'cid', '[1, 2]')}; COMMIT"
    )
    first.run("""UPDATE entities SET props = props || '{"name": "Ada L.", "big": 9007199254740993}' WHERE id = 'ada'""")
    first.run("UPDATE entities SET props = NULL, event_time = NULL WHERE id = 'bob'")
    first.run("UPDATE relationships SET to_id = 'bob' WHERE id = 'r2'")
    first.run("""UPDATE entities SET "case" = 'c-2' WHERE id = 'cid'""")
    first.run("UPDATE entities SET tenant = 'other' WHERE id = 'cid'")
    first.run("UPDATE entities SET id = 'cyd' WHERE id = 'cid'")
    back = entity("bob", '{"back": 1}')
    first.run(f"BEGIN; DELETE FROM entities WHERE id = 'bob'; {back}; COMMIT")
    first.run("DELETE FROM relationships WHERE id = 'r1'")
    twice = "UPDATE entities SET props = '{{\"v\": {}}}' WHERE id = 'eve'"
    first.run(f"BEGIN; {twice.format(1)}; {twice.format(2)}; COMMIT")
    # overlapping transactions: the one whose change is written first commits last
    first.run(f"BEGIN; {twice.format(3)}")
    second.run("""UPDATE entities SET props = '{"between": true}' WHERE id = 'bob'""")
    first.run("COMMIT")
    large = "(SELECT jsonb_build_object('text', string_agg(md5(i::text), '')) FROM generate_series(1, 300) i)"
    first.run(f"INSERT INTO entities VALUES ('acme', 'c-1', 'person', 'fat', {large})")
    first.run("UPDATE entities SET event_time = '2026-02-01T00:00:00+01:00' WHERE id = 'fat'")


def without_full_identity(first: Session) -> None:
    """What a table says whose replica identity is not FULL."""
    first.run("ALTER TABLE entities REPLICA IDENTITY DEFAULT")
    first.run("UPDATE entities SET event_time = '2026-03-01T00:00:00Z' WHERE id = 'fat'")
    first.run("UPDATE entities SET id = 'fit' WHERE id = 'fat'")
    first.run("DELETE FROM entities WHERE id = 'fit'")
    first.run("ALTER TABLE entities REPLICA IDENTITY FULL")


def read_again(first: Session, second: Session, seen: Callable[[], None]) -> None:
    """An incremental snapshot while a transaction is open whose change is older in the log and younger in effect."""
    first.run("""BEGIN; UPDATE entities SET props = '{"v": "late"}' WHERE id = 'eve'""")
    data = '{"data-collections": ["public.entities", "public.relationships"], "type": "incremental"}'
    second.run(f"INSERT INTO intelgraph_signal VALUES ('again', 'execute-snapshot', '{data}')")
    seen()
    first.run("COMMIT")


class Capture:
    """The services and the connectors of one run."""

    def __init__(self, folder: Path) -> None:
        self.services = Services(folder, CATALOGUE, ROOT / ".services" / "artifacts")
        self.database, self.broker = self.services.start("postgres"), self.services.start("kafka")
        self.worker = self.services.start("connect")

    def connect(self) -> None:
        """Make both connectors and wait until they follow."""
        base = json.loads((ROOT / "configs" / "cdc" / "connector.json").read_text())
        details = self.database.details
        for name, schemas in KINDS.items():
            config = {
                **base,
                "topic.prefix": name, "slot.name": name, "heartbeat.interval.ms": "0",
                "database.hostname": details["host"], "database.port": details["port"],
                "database.user": details["user"], "database.password": details["password"],
                "database.dbname": details["database"],
                "key.converter": "org.apache.kafka.connect.json.JsonConverter",
                "value.converter": "org.apache.kafka.connect.json.JsonConverter",
                "key.converter.schemas.enable": str(schemas).lower(),
                "value.converter.schemas.enable": str(schemas).lower(),
            }  # fmt: skip
            config.pop("heartbeat.action.query")
            body = json.dumps({"name": name, "config": config}).encode()
            request = urllib.request.Request(  # noqa: S310 - an address of ours
                f"{self.worker.address}/connectors", body, {"content-type": "application/json"}
            )
            urllib.request.urlopen(request, timeout=60).close()  # noqa: S310

    def restart_worker(self) -> None:
        """SIGKILL, so that what was sent and not noted is sent again."""
        self.services.kill("connect")
        self.worker = self.services.start("connect")
        self.connect()

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Everything in the topics of the tables, by connector, each in the order of offsets."""
        return asyncio.run(self._records())

    async def _records(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        async with AIOKafkaConsumer(bootstrap_servers=self.broker.address, enable_auto_commit=False) as consumer:
            topics = await consumer.topics()
            for name in KINDS:
                at = [TopicPartition(t, 0) for table in TABLES if (t := f"{name}.public.{table}") in topics]
                if not at:
                    found[name] = []
                    continue
                consumer.assign(at)
                await consumer.seek_to_beginning()
                ends = await consumer.end_offsets(at)
                rows: list[Any] = []
                while len(rows) < sum(ends.values()):
                    rows += [r for many in (await consumer.getmany(timeout_ms=500)).values() for r in many]
                rows.sort(key=lambda r: (TABLES.index(r.topic.rpartition(".")[2]), r.offset))
                found[name] = [
                    {"topic": r.topic, "partition": r.partition, "offset": r.offset,
                     "key": r.key and r.key.decode(), "value": r.value and r.value.decode()}
                    for r in rows
                ]  # fmt: skip
        return found

    def wait_for(self, what: str, count: int = 1) -> None:
        """Until each connector has sent `count` records that hold this text."""
        end = time.monotonic() + _WAIT_S
        while any(sum(what in (r["value"] or "") for r in rows) < count for rows in self.records().values()):
            if time.monotonic() > end:
                raise SystemExit(f"no record with {what!r} has come in {_WAIT_S:.0f} s")
            time.sleep(0.3)


def capture(folder: Path) -> None:
    """Run the steps and write the corpus."""
    run = Capture(folder)
    try:
        with Session(run.database) as first, Session(run.database) as second:
            first.run((ROOT / "configs" / "cdc" / "postgres.sql").read_text())
            first.run("; ".join(BEFORE))
            run.connect()
            run.wait_for("Paris")
            changes(first, second)
            run.wait_for('"id":"fat"', 2)
            without_full_identity(first)
            run.wait_for('"op":"d"', 6)
            read_again(first, second, lambda: run.wait_for('"snapshot":"incremental"', 5))
            run.wait_for("late")
            first.run("TRUNCATE claims")
            run.wait_for('"op":"t"')
            run.restart_worker()
            first.run(claim("k3", "ada", '"Rome"'))
            run.wait_for("Rome")
            state = [line for table in TABLES for line in final(first, table)]
        CORPUS.mkdir(exist_ok=True)
        for name, rows in run.records().items():
            _write(CORPUS / f"{name}.jsonl", rows)
        _write(CORPUS / "final.jsonl", state)
    finally:
        run.services.stop_all(keep_data=False)


def final(session: Session, table: str) -> list[Any]:
    """What a table holds, as JSON objects with the table's name."""
    query = f"SELECT row_to_json(t) FROM (SELECT '{table}' AS table, * FROM {table} ORDER BY 2, 3, 4, 5) t"
    return [json.loads(line) for line in session.run(query).splitlines()]


def _write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{path.relative_to(ROOT)}: {len(rows)} rows")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        capture(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="igcdc-") as scratch:
            Path(scratch).chmod(0o711)
            capture(Path(scratch))
