"""A database of a test's own whose changes Debezium carries into Kafka, on the run's real servers."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from services.runner import Services
from services.spec import Running
from tests.cdc.capture import TABLES, Session, final

ROOT = Path(__file__).resolve().parents[2]


class CapturedDatabase:
    """PostgreSQL with the tables of configs/cdc/postgres.sql, and a connector as configs/cdc/connector.json makes it.

    Args:
        name: of the database, the replication slot, the connector, and the topics' prefix.
        options: of the connector, beside those of configs/cdc/connector.json.
    """

    def __init__(self, services: Services, name: str, options: Mapping[str, str] | None = None) -> None:
        self._services, self.name, self._options = services, name, options or {}
        server, self.broker = services.start("postgres"), services.start("kafka")
        self._worker = services.start("connect")
        with Session(server) as session:
            session.run(f"CREATE DATABASE {name}")
        address = server.address.rpartition("/")[0] + f"/{name}"
        self.server: Running = replace(server, address=address, details={**server.details, "database": name})
        with self.session() as session:
            session.run((ROOT / "configs" / "cdc" / "postgres.sql").read_text())

    def session(self) -> Session:
        """A session of psql in it."""
        return Session(self.server)

    def topic(self, table: str) -> str:
        """Where a table's changes go."""
        return f"{self.name}.public.{table}"

    def connect(self) -> None:
        """Makes the connector; safe to call twice."""
        details = self.server.details
        config = {
            **json.loads((ROOT / "configs" / "cdc" / "connector.json").read_text()),
            "topic.prefix": self.name, "slot.name": self.name, "database.dbname": self.name,
            "database.hostname": details["host"], "database.port": details["port"],
            "database.user": details["user"], "database.password": details["password"], **self._options,
        }  # fmt: skip
        self._call("PUT", "/config", config)

    def kill_worker(self) -> None:
        """SIGKILL of Connect, and a new one: what was sent and not noted is sent again."""
        self._services.kill("connect")
        self._worker = self._services.start("connect")
        self.connect()

    def rows(self) -> list[dict[str, Any]]:
        """What the tables hold now."""
        with self.session() as session:
            return [row for table in TABLES for row in final(session, table)]

    def close(self) -> None:
        """The connector and its slot go."""
        self._call("DELETE", "")
        with self.session() as session:
            end = time.monotonic() + 20.0
            query = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{self.name}' AND active"  # noqa: S608
            while session.run(query).strip() != "0" and time.monotonic() < end:
                time.sleep(0.1)
            session.run(f"SELECT pg_drop_replication_slot('{self.name}')")

    def _call(self, method: str, path: str, body: object = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self._worker.address}/connectors/{self.name}{path}"
        request = urllib.request.Request(  # noqa: S310 - an address of ours
            url, data, {"content-type": "application/json"}, method=method
        )
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310
