"""Tallies: kept with what they count, and begun from what an older schema holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from cluster.stores import control_database
from cluster.stores import control_tallies as tallies
from cluster.stores.control import open_control
from cluster.stores.control_database import ControlDatabase

LETTER = (
    "INSERT INTO dead_letters (id, tenant, source, version, error_class, reason, payload, payload_bytes,"
    " payload_sha256, headers, state, first_seen) VALUES (?, 'acme', 'crm', ?, ?, '', x'', 0, '', '{}', ?, 0)"
)
KEY = (
    "INSERT INTO acceptances (tenant, source, key, body_hash, epoch, first_position, count, created)"
    " VALUES (?, 'crm', ?, '', 1, 1, 1, 0)"
)


def test_counts_go_up_and_down_and_are_taken_back_with_their_transaction(tmp_path: Path) -> None:
    store = open_control(f"sqlite:///{tmp_path / 'control.db'}")
    with store.database.write() as connection:
        tallies.add(connection, tallies.KEYS, "acme", 5)
        tallies.add(connection, tallies.KEYS, "acme", -2)
        tallies.add(connection, tallies.KEYS, "other", 0)
        tallies.add(connection, tallies.LETTERS_IN, "acme", 7)
    with pytest.raises(ZeroDivisionError), store.database.write() as connection:
        tallies.add(connection, tallies.KEYS, "acme", 1)
        _ = 1 / 0
    with store.database.read() as connection:
        assert tallies.of(connection, tallies.KEYS) == {"acme": 3}
        assert tallies.one(connection, tallies.KEYS, "other") == 0
    store.close()


def test_what_an_older_schema_holds_is_counted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    database, config = ControlDatabase(url), Config()
    config.set_main_option("script_location", str(Path(control_database.__file__).with_name("migrations")))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        states = [("decode", "waiting"), ("decode", "replayed"), ("schema", "quarantined"), ("schema", "replayed")]
        for number, (error_class, state) in enumerate(states):
            connection.exec_driver_sql(LETTER, (str(number), str(number), error_class, state))
        for tenant, key in (("acme", "1"), ("acme", "2"), ("other", "1")):
            connection.exec_driver_sql(KEY, (tenant, key))
    database.close()
    store = open_control(url)
    assert store.dead_letters.counted() == ({"decode": 2, "schema": 2}, {"replayed": 2, "quarantined": 1})
    with store.database.read() as connection:
        assert tallies.of(connection, tallies.KEYS) == {"acme": 2, "other": 1}
    store.close()
