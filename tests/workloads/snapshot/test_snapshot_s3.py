"""Snapshots in S3 of a lake in S3: equal to local ones, whole whatever dies or does not answer, one pointer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import Conflict, OutcomeUnknown, Unavailable
from cluster.stores.lake import Lake
from cluster.stores.places import FilePlace, Seen, open_place
from cluster.stores.s3_place import S3Place
from tests.s3_bucket import S3Bucket
from tests.workloads.snapshot.lakes import fill
from tests.workloads.snapshot.test_crash import NOW, START, Dying, some
from workloads.overlay.row_groups import plan_here, read_rows
from workloads.overlay.snapshot_input import SnapshotInput
from workloads.snapshot.create import create_snapshot
from workloads.snapshot.export import export_lines
from workloads.snapshot.layout import LATEST, MANIFEST
from workloads.snapshot.prune import prune
from workloads.snapshot.publish import advance
from workloads.snapshot.read import files_of, list_snapshots, open_snapshot
from workloads.snapshot.verify import verify

pytestmark = [pytest.mark.production, pytest.mark.timeout(300)]


@pytest.fixture
def remote(bucket: S3Bucket, tmp_path: Path) -> Iterator[Lake]:
    """A lake of what both snapshots below are made from."""
    with Lake.open(tmp_path / "lake", settings=bucket.lake()) as lake:
        fill(lake, START, some(0, 12))  # type: ignore[arg-type]
        yield lake


@pytest.fixture
def place(bucket: S3Bucket, tmp_path: Path) -> FilePlace:
    return open_place(bucket.snapshots(), tmp_path / "snapshots")


def more(lake: Lake) -> None:
    number = lake.positions().records
    fill(lake, lake.positions(), some(number, 6))  # type: ignore[arg-type]


def test_it_equals_a_local_one(remote: Lake, place: FilePlace, bucket: S3Bucket, tmp_path: Path) -> None:
    create_snapshot(remote, place, NOW)
    more(remote)
    there = create_snapshot(remote, place, NOW)
    here = create_snapshot(remote, tmp_path / "here", NOW)
    assert (there.content_hash, there.sequence) == (here.content_hash, 2)
    assert [manifest.id for manifest in list_snapshots(place)] == [there.parent, there.id]
    assert {f"{there.id}/{part.path}" for part in files_of(there)} | {LATEST} < bucket.files("snapshots").keys()
    assert all(name in (LATEST,) or name.count("/") for name in bucket.files("snapshots"))
    assert [path for path in (tmp_path / "snapshots").rglob("*") if path.is_file() and path.stat().st_size] == []
    with open_snapshot(place) as one, open_snapshot(tmp_path / "here") as other:
        assert verify(one).is_whole
        assert export_lines(one, "t") == export_lines(other, "t")
        assert np.array_equal(one.tenant_graph("t").csr_dst, other.tenant_graph("t").csr_dst)
        graphs = [SnapshotInput(snapshot, "t").graph for snapshot in (one, other)]
        found = [plan_here([graph.offsets, graph.neighbours]) for graph in graphs]
        for mine, yours in zip(*found, strict=True):
            assert mine.rows == yours.rows
            assert np.array_equal(read_rows(mine, 1, mine.rows), read_rows(yours, 1, yours.rows))


def test_a_flipped_byte_is_found(remote: Lake, place: FilePlace, bucket: S3Bucket) -> None:
    manifest = create_snapshot(remote, place, NOW)
    for part in files_of(manifest)[::5]:
        path = bucket.path("snapshots", f"{manifest.id}/{part.path}")
        data = path.read_bytes()
        at = len(data) // 2
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with open_snapshot(place) as snapshot:
            assert verify(snapshot, deep=False).problems == (f"{part.path}: its bytes are not those that were written",)
        path.write_bytes(data)
    path.unlink()
    with open_snapshot(place) as snapshot:
        assert verify(snapshot).problems == (f"{part.path}: the file is missing",)


def crashed(remote: Lake, place: FilePlace, dying: Dying, steps: list[int]) -> list[str]:
    """Dies before each of these steps, and comes to its end at last; returns the steps."""
    first = create_snapshot(remote, place, NOW)
    more(remote)
    done: list[str] = []
    for die_at in steps:
        assert not dying.take(die_at)
        with open_snapshot(place) as snapshot:
            assert snapshot.id == first.id
            assert verify(snapshot).is_whole
    done = dying.take(1000)
    with open_snapshot(place) as snapshot:
        assert snapshot.manifest.parent == first.id
        assert verify(snapshot).is_whole
        prune(place, keep=2)
        assert place.folders() == [first.id, snapshot.id]
    return done


@pytest.fixture
def dying(bucket: S3Bucket, tmp_path: Path) -> Iterator[Dying]:
    made = Dying(tmp_path, bucket.lake(), bucket.snapshots())
    yield made
    made.close()


def counted(remote: Lake, folder: Path) -> int:
    """Steps of a snapshot, here as in S3."""
    steps: list[str] = []
    create_snapshot(remote, folder, NOW)
    more(remote)
    create_snapshot(remote, folder, NOW, failpoint=steps.append)
    return len(steps)


def test_a_crash_leaves_the_old_one(remote: Lake, place: FilePlace, dying: Dying, tmp_path: Path) -> None:
    steps = counted(remote, tmp_path / "counting")
    done = crashed(remote, place, dying, [1, steps // 2, steps - 3, steps - 1])
    assert len(done) == steps
    assert done[-4:] == ["manifest.write", "manifest.rename", "pointer.write", "pointer.rename"]


@pytest.mark.chaos
def test_a_crash_at_every_step(remote: Lake, place: FilePlace, dying: Dying, tmp_path: Path) -> None:
    crashed(remote, place, dying, list(range(counted(remote, tmp_path / "counting"))))


@pytest.mark.parametrize("step", ["registers.rename", "manifest.rename", "pointer.rename"])
def test_without_s3_the_old_one_stays(remote: Lake, place: FilePlace, bucket: S3Bucket, step: str) -> None:
    first = create_snapshot(remote, place, NOW)
    more(remote)

    def away(now: str) -> None:
        if now == step:
            bucket.kill()

    with pytest.raises(OutcomeUnknown if step == "pointer.rename" else Unavailable, match="does not answer"):
        create_snapshot(remote, place, NOW, failpoint=away)
    with pytest.raises(Unavailable):
        open_snapshot(place)
    bucket.start()
    with open_snapshot(place) as snapshot:
        assert snapshot.id == first.id
        assert verify(snapshot).is_whole
    waiting = prune(place, keep=1).in_use
    assert len(waiting) == (0 if step == "registers.rename" and len(place.folders()) == 1 else 1)
    second = create_snapshot(remote, place, NOW)
    assert second.parent == first.id
    prune(place, keep=1)
    assert place.folders() == [second.id]


@pytest.mark.parametrize("error", [Unavailable("no answer"), Conflict("the client asked again")])
@pytest.mark.parametrize("stays_away", [False, True])
def test_a_pointer_whose_answer_is_lost_is_no_failure(
    remote: Lake, place: FilePlace, monkeypatch: pytest.MonkeyPatch, error: Exception, stays_away: bool
) -> None:
    """Nor is what it points to removed where nobody can look whether it is there."""
    put, look, lost = S3Place.put, S3Place.look, []

    def losing(self: S3Place, name: str, *rest: Any) -> None:
        put(self, name, *rest)
        if name == LATEST:
            lost.append(name)
            raise error

    def away(self: S3Place, name: str) -> Seen | None:
        if name in lost and stays_away:
            raise Unavailable("no answer")
        return look(self, name)

    monkeypatch.setattr(S3Place, "put", losing)
    monkeypatch.setattr(S3Place, "look", away)
    if stays_away:
        with pytest.raises(OutcomeUnknown):
            create_snapshot(remote, place, NOW)
    else:
        create_snapshot(remote, place, NOW)
    monkeypatch.undo()
    with open_snapshot(place) as snapshot:
        assert verify(snapshot).is_whole


def test_of_two_jobs_one_moves_the_pointer(remote: Lake, bucket: S3Bucket, tmp_path: Path) -> None:
    """Two machines: they share no lock."""
    together = threading.Barrier(2)

    def take(machine: str) -> str:
        place = open_place(bucket.snapshots(), tmp_path / machine)

        def wait(step: str) -> None:
            if step == "pointer.rename":
                together.wait(30)

        with Lake.open(tmp_path / "lake", settings=bucket.lake()) as lake:
            try:
                return create_snapshot(lake, place, NOW, failpoint=wait).id
            except Conflict:
                return ""

    with ThreadPoolExecutor(2) as threads:
        won = [name for name in threads.map(take, ["one", "two"]) if name]
    place = open_place(bucket.snapshots(), tmp_path / "one")
    assert [manifest.id for manifest in list_snapshots(place)] == won
    assert place.folders() == won, "the other one is removed"
    with open_snapshot(place) as snapshot:
        assert verify(snapshot).is_whole


def test_the_pointer_only_advances(remote: Lake, place: FilePlace) -> None:
    first = create_snapshot(remote, place, NOW)
    more(remote)
    second = create_snapshot(remote, place, NOW)
    with pytest.raises(Conflict, match="published meanwhile"):
        advance(place, first)
    advance(place, second)
    assert place.size(f"{first.id}/{MANIFEST}")
