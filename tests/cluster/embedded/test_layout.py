"""The stack's specs, their configuration as text, libgomp and ports."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from cluster.embedded import HeldPorts, free_port, is_free, stack
from cluster.embedded import libgomp as gomp
from cluster.embedded.conf import render
from cluster.embedded.passwords import Passwords
from cluster.embedded.spec import ServerSpec
from cluster.errors import Rejected

PASSWORDS = Passwords(SecretStr("application-password"), SecretStr("operator-password"))


def text_of(spec: ServerSpec) -> str:
    return render(spec, PASSWORDS, Path("/m/falkordb.so"))


def test_the_stack_has_each_server_in_a_folder_of_its_own(tmp_path):
    specs = stack(tmp_path / "s", shards=3)
    assert list(specs) == ["log", "cache", "shard-0", "shard-1", "shard-2"]
    assert len({spec.folder for spec in specs.values()}) == len({spec.socket for spec in specs.values()}) == 5
    assert specs == stack(tmp_path / "s", shards=3)


@pytest.mark.parametrize("shards", [-1, 65])
def test_the_number_of_shards_is_bounded(tmp_path, shards):
    with pytest.raises(Rejected):
        stack(tmp_path / "s", shards)


def test_configurations_hold_what_each_role_needs(tmp_path):
    specs = stack(tmp_path / "s", shards=1)
    log, cache, shard = (text_of(specs[name]).splitlines() for name in ("log", "cache", "shard-0"))
    for lines in (log, cache, shard):
        assert {"port 0", "unixsocketperm 700", "save ''"} <= set(lines)
        assert not any("-password" in line for line in lines)
        assert sum(line.startswith("user default reset off #") for line in lines) == 1
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(log)
    assert {"appendonly no", "maxmemory-policy allkeys-lru"} <= set(cache)
    assert "appendonly no" in shard
    assert any(line.startswith('loadmodule "/m/falkordb.so"') and "RESULTSET_SIZE -1" in line for line in shard)


@pytest.mark.parametrize("bad", ['a"b', "a\nb", "a\\b"])
def test_a_path_cannot_add_directives(tmp_path, bad):
    spec = dataclasses.replace(stack(tmp_path / "s", 1)["log"], folder=Path("/tmp") / bad)
    with pytest.raises(Rejected):
        text_of(spec)


def test_libgomp_of_the_wheel_is_linked_and_found_again(tmp_path):
    folder = gomp.library_folder(tmp_path / "lib", force=True)
    assert folder == gomp.library_folder(tmp_path / "lib", force=True)
    assert folder is not None
    link = folder / "libgomp.so.1"
    assert link.read_bytes()[:4] == b"\x7fELF"
    link.unlink()
    link.symlink_to("/nowhere/libgomp.so.1")
    gomp.library_folder(tmp_path / "lib", force=True)
    assert link.exists()


def test_libgomp_of_the_wheel_is_used_where_the_system_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(gomp, "_TRIAL", gomp._TRIAL.replace("libgomp", "libgomp-of-another-world"))
    assert gomp.library_folder(tmp_path / "lib") == tmp_path / "lib"


def test_without_any_libgomp_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(gomp, "files", lambda name: [])
    with pytest.raises(Rejected, match="apt install libgomp1"):
        gomp.library_folder(tmp_path / "lib", force=True)


def test_a_taken_port_is_avoided_and_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        if wanted > 65_000:
            pytest.skip("the system chose a port too near the end")
        assert not is_free(wanted)
        found = free_port(wanted)
        assert found.number > wanted
        assert str(wanted) in str(found.note)
        with pytest.raises(Rejected, match=str(wanted)):
            free_port(wanted, tries=1)
    assert free_port(wanted).note is None


@pytest.mark.parametrize("wanted", [0, -1, 65_536])
def test_what_is_no_port_is_refused(wanted):
    with pytest.raises(Rejected):
        free_port(wanted)


def test_the_last_port_is_tried_and_no_more():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        with pytest.raises(Rejected):
            free_port(65_535)


def test_a_port_that_is_held_is_chosen_by_nobody_else_though_it_is_not_bound_yet():
    one, other = HeldPorts(), HeldPorts()
    first = one.take(21_000).number
    assert is_free(first)
    assert other.take(first).number > first
    assert one.take(first).number > first, "nor by the same holder twice"
    one.close()
    one.close()
    assert other.take(first).number == first
    other.close()


def test_two_processes_that_choose_at_once_choose_different_ports():
    program = (
        "from cluster.embedded import HeldPorts; h = HeldPorts(); print(h.take(22_000).number, flush=True); input()"
    )
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", program], **options) for _ in range(4)]
    chosen = [int(process.stdout.readline()) for process in processes]
    assert len(set(chosen)) == len(processes)
    processes[0].kill()
    processes[0].wait()
    mine = HeldPorts()
    assert mine.take(chosen[0]).number == chosen[0], "a holder that was killed holds nothing"
    mine.close()
    for process in processes:
        process.communicate("")
