"""Passwords: generated once, private, shared by concurrent starters."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.embedded.passwords import load_passwords
from cluster.errors import Corrupt


def test_generated_once_and_private(tmp_path):
    file = tmp_path / "state" / "secrets.json"
    first = load_passwords(file)
    assert load_passwords(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len({first.application.get_secret_value(), first.operator.get_secret_value()}) == 2
    assert len(first.application.get_secret_value()) >= 40
    assert first.operator.get_secret_value() not in repr(first)


def test_other_entries_stay(tmp_path):
    file = tmp_path / "secrets.json"
    file.write_text('{"other": "kept"}')
    load_passwords(file)
    assert json.loads(file.read_text())["other"] == "kept"


def test_concurrent_starters_get_the_same(tmp_path):
    file = tmp_path / "secrets.json"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_passwords(file).operator.get_secret_value(), range(32)))
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.glob(".secrets*")] == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"redis_operator": 1}'])
def test_a_broken_file_is_never_replaced(tmp_path, text):
    file = tmp_path / "secrets.json"
    file.write_text(text)
    with pytest.raises(Corrupt, match=r"secrets\.json"):
        load_passwords(file)
    assert file.read_text() == text
