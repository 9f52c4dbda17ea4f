"""Databases of a test's own on the run's PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from pydantic import SecretStr

from cluster.config_control import ControlSettings
from services.spec import Running as Service


@dataclass(frozen=True)
class PostgresServer:
    """One that runs."""

    service: Service

    def url(self, name: str) -> str:
        """Of a database, for SQLAlchemy."""
        at = self.service.details
        return f"postgresql+psycopg://{at['user']}:{at['password']}@{at['host']}:{at['port']}/{name}"

    def settings(self, name: str) -> ControlSettings:
        """Of an installation whose control store is a database of that name."""
        at = self.service.details
        return ControlSettings(
            kind="postgresql", host=at["host"], port=int(at["port"]), database=name, user=at["user"],
            password=SecretStr(at["password"]), tls="disable",
        )  # fmt: skip

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection]:
        """Beside the databases of tests."""
        at = self.service.details
        with psycopg.connect(
            host=at["host"], port=int(at["port"]), user=at["user"], password=at["password"], dbname=at["database"],
            autocommit=True,
        ) as connection:  # fmt: skip
            yield connection

    def create(self, name: str, template: str = "template1") -> str:
        """A database like another one, in the place of one that has that name; its URL."""
        self.drop(name)
        self.cut_off(template)
        with self.connected() as connection:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop(self, name: str) -> None:
        """It is gone, whoever works in it."""
        with self.connected() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def cut_off(self, name: str) -> None:
        """Whoever works in a database loses the connection."""
        with self.connected() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
