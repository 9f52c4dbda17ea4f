"""Files in S3: whole or not there, replaced only by who saw what it replaces, and errors that say what to do."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from cluster.errors import Conflict, OutcomeUnknown, Unavailable
from cluster.stores.places import FilePlace, open_place
from tests.s3_bucket import S3Bucket

pytestmark = [pytest.mark.production, pytest.mark.timeout(120)]


@pytest.fixture
def place(bucket: S3Bucket, tmp_path: Path) -> FilePlace:
    return open_place(bucket.place("files"), tmp_path)


def test_a_file_shows_when_it_is_published(place: FilePlace, bucket: S3Bucket) -> None:
    data = os.urandom(20 << 20)
    with place.create("a/part", blake3()) as file:
        file.write(data[: 15 << 20])
        file.write(data[15 << 20 :])
        assert (file.bytes_written, file.seal()) == (len(data), blake3(data).hexdigest())
        assert bucket.files("files") == {}
        file.publish("a/part-1")
    place.sync(["a/part-1"])
    assert bucket.files("files") == {"a/part-1": len(data)}
    assert place.source("a/part-1").read() == data  # type: ignore[union-attr]
    ranges: Any = place.ranges("a/part-1")
    assert ranges.seek(-3, os.SEEK_END) == len(data) - 3
    assert ranges.read() == data[-3:]


def test_one_that_fails_shows_nothing(place: FilePlace, bucket: S3Bucket) -> None:
    with pytest.raises(ZeroDivisionError), place.create("a") as file:
        file.write(bytes(9 << 20))
        raise ZeroDivisionError
    with place.create("b") as file:
        file.write(bytes(20 << 20))
        bucket.kill()
        file.seal()
        with pytest.raises(Unavailable, match="does not answer"):
            file.publish("b")
    bucket.start()
    assert bucket.files("files") == {}


def test_names_folders_and_their_end(place: FilePlace, bucket: S3Bucket) -> None:
    inner = pickle.loads(pickle.dumps(place)).within("x")  # noqa: S301 - ours
    for name in ("one", "y/two", "r=a%2Fb/three"):
        inner.write(name, name.encode())
    place.write("xy", b"beside")
    assert inner.names() == {"one", "y/two", "r=a%2Fb/three"}
    assert set(bucket.files("files")) == {"x/one", "x/y/two", "x/r=a%2Fb/three", "xy"}
    assert place.folders() == ["x"]
    assert [inner.size("one"), inner.size("none"), inner.look("none")] == [3, None, None]
    inner.rename("one", "uno")
    inner.remove("one")
    assert inner.names() == {"uno", "y/two", "r=a%2Fb/three"}
    with pytest.raises(FileNotFoundError):
        inner.source("one")
    inner.remove_all()
    inner.remove_all()
    assert place.names() == {"xy"}


def test_of_many_who_replace_one_wins(place: FilePlace) -> None:
    for round_ in range(5):
        seen, together, won = place.look("pointer"), threading.Barrier(6), []

        def replace(mine: bytes, seen: Any = seen, together: Any = together, won: Any = won) -> None:
            together.wait(10)
            try:
                place.replace("pointer", mine, seen)
                won.append(mine)
            except Conflict:
                return

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(replace, [f"{round_} {n}".encode() for n in range(6)]))
        assert len(won) == 1
        now = place.look("pointer")
        assert now is not None
        assert now.data == won[0]


def test_errors_say_what_to_do_and_no_secret(bucket: S3Bucket, tmp_path: Path) -> None:
    def told(**changes: Any) -> str:
        with pytest.raises(Unavailable) as raised:
            open_place(bucket.place("files", **changes), tmp_path).write("a", b"a")
        return f"{raised.value} {raised.value.__cause__!r}"

    assert "refuses key" in told(secret_key="Wrong0123")
    assert "Wrong0123" not in told(secret_key="Wrong0123")
    assert "there is no bucket" in told(uri="s3://nowhere/x")
    assert "does not answer" in told(ca_file=None), "the certificate is checked"
    place = open_place(bucket.place("files"), tmp_path)
    assert bucket.server.details["password"] not in repr(place)
    bucket.kill()
    assert "does not answer" in told()
    with pytest.raises(OutcomeUnknown):
        place.replace("pointer", b"1", None)
