"""The command line without a running system: help, options, errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cluster.shard_map import initial
from cluster.stores.control import open_control
from cluster.stores.control_audit import INSTALLATION
from serve_apps.cli.access import seconds_of
from serve_apps.cli.exits import Exit, Misused
from serve_apps.cli.ingest import source_of
from serve_apps.cli.main import app
from serve_apps.cli.output import printable, shown, size

RUNNER = CliRunner()
GROUPS = {
    "ingest": ("file", "list", "undo"),
    "sources": ("list", "register", "kill", "priority"),
    "dlq": ("list", "show", "replay"),
    "snapshot": ("create", "list", "verify", "diff"),
    "overlay": ("list", "run", "top"),
    "query": ("cases", "search", "entity", "neighbors"),
    "shards": ("list", "add", "drain"),
    "schemas": ("check", "list", "show"),
    "log": ("show", "accept-loss", "repartition"),
}
PLAIN = ("up", "down", "status", "lag", "token", "export", "hash", "audit", "demo")
VERBS = [(name,) for name in PLAIN] + [(name, verb) for name, verbs in GROUPS.items() for verb in verbs]


def run(state_dir: Path, *arguments: str) -> Result:
    return RUNNER.invoke(app, [*arguments, "--state-dir", str(state_dir)])


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_and_json(verb: tuple[str, ...]) -> None:
    found = RUNNER.invoke(app, [*verb, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert found.exit_code == Exit.DONE
    assert "--json" in found.output
    assert "--state-dir" in found.output


def test_help_imports_nothing_heavy() -> None:
    heavy = ("ray", "pyarrow", "polars", "sqlalchemy", "pydantic", "redis", "httpx")
    program = f"import sys; from serve_apps.cli.main import app; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("lag",), ("audit",), ("hash",), ("export", "-t", "a"), ("query", "cases", "-t", "a"),
        ("sources", "list", "-t", "a"), ("snapshot", "create"), ("shards", "add"),
    ],
    ids=lambda arguments: " ".join(arguments),
)  # fmt: skip
def test_what_needs_the_system_says_that_it_is_not_up(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = run(tmp_path / "s", *arguments)
    assert found.exit_code == Exit.RETRY
    assert "intelgraph up" in found.stderr


def test_errors_are_json_where_json_is_asked_for(tmp_path: Path) -> None:
    found = run(tmp_path / "s", "lag", "--json")
    assert found.exit_code == Exit.RETRY
    assert json.loads(found.stdout)["error"]["kind"] == "not_up"


def test_common_options_may_stand_before_the_verb(tmp_path: Path) -> None:
    found = RUNNER.invoke(app, ["--json", "--state-dir", str(tmp_path / "s"), "status"])
    assert found.exit_code == Exit.RETRY
    assert json.loads(found.stdout) == {"up": False, "state_dir": str(tmp_path / "s")}


def test_down_where_nothing_is_up_is_done_already(tmp_path: Path) -> None:
    found = run(tmp_path / "s", "down")
    assert found.exit_code == Exit.DONE
    assert "not up" in found.stdout
    assert not (tmp_path / "s").exists()


def test_a_configuration_with_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("lake: {comit_s: 1}\n")
    found = RUNNER.invoke(app, ["status", "--config", str(tmp_path / "c.yaml")])
    assert found.exit_code == Exit.FAILED
    assert "lake.comit_s" in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("lag", "--no-such-option"), ("query", "cases"), ("ingest", "a.csv"),
        ("ingest", "a.csv", "-t", "a", "--format", "x"),
        ("ingest", "https://example.org/a.csv", "-t", "a"), ("dlq", "list", "-t", "a", "--class", "x"),
        ("token", "-t", "a", "--ttl", "soon"), ("hash", "--state", "--case", "c"),
    ],
    ids=lambda arguments: " ".join(arguments),
)  # fmt: skip
def test_what_is_written_wrongly_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "s").mkdir()
    assert run(tmp_path / "s", *arguments).exit_code == Exit.USAGE


def test_a_token_is_issued_for_its_scopes_and_sources(tmp_path: Path) -> None:
    from serve_apps.tokens import TokenAuthority

    arguments = ("token", "-t", "acme", "--scope", "ingest", "--source", "hr", "--ttl", "30m", "--json")
    found = run(tmp_path / "s", *arguments)
    principal = TokenAuthority.open(tmp_path / "s").verify(json.loads(found.stdout)["token"])
    assert (principal.tenant, principal.scopes, principal.sources) == ("acme", frozenset({"ingest"}), ("hr",))


def test_a_token_for_the_platforms_own_sources_is_refused(tmp_path: Path) -> None:
    found = run(tmp_path / "s", "token", "-t", "acme", "--scope", "ingest", "--source", "overlay/pagerank")
    assert found.exit_code == Exit.FAILED


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_lifetimes(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("name", "source"), [("people.csv", "people"), ("/x/my facts.csv.gz", "my-facts"), ("a:b.jsonl", "a:b")]
)
def test_the_source_comes_from_the_files_name(name: str, source: str) -> None:
    assert source_of(name) == source


def test_a_name_that_gives_no_source_is_refused() -> None:
    with pytest.raises(Misused, match="--source"):
        source_of("….csv")


def test_values_for_people() -> None:
    assert [shown(v) for v in (None, True, 1234, 0.0001, "x")] == ["-", "yes", "1,234", "0.0001", "x"]
    assert (size(10), size(2048), size(5 << 30)) == ("10 B", "2.0 KiB", "5.0 GiB")
    assert printable("a\x1b[2J\u202e") == "a\\x1b[2J\\u202e"


def test_a_state_directory_that_cannot_be_is_named_in_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file / "below", tmp_path / ("x" * 300)):
        found = RUNNER.invoke(app, ["up", "--state-dir", str(folder)])
        assert found.exit_code == 1
        assert not found.exception or isinstance(found.exception, SystemExit)
        assert folder.name[:20] in found.output.replace("\n", "")


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["people", "machines"])
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_output_that_nobody_reads_ends_quietly_and_a_full_disk_is_named(
    tmp_path: Path, options: tuple[str, ...], unbuffered: str
) -> None:
    command = [sys.executable, "-m", "serve_apps.cli.main", "--state-dir", str(tmp_path / "s"), *options, "status"]
    surroundings: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "check": False}
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(command, stdout=writing, env=environment, **surroundings)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, env=environment, **surroundings)
    assert done.returncode == Exit.FAILED
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_another_number_of_partitions_is_asked_for_once_there_is_a_log(tmp_path: Path) -> None:
    never = run(tmp_path, "log", "repartition", "8")
    assert (never.exit_code, "start the system" in never.output) == (Exit.RETRY, True)
    with closing(open_control(f"sqlite:///{tmp_path / 'control.db'}")) as control:
        control.shards.register("shard-0", "", 0.0)
        control.shard_maps.publish(0, initial(["shard-0"], 4), 0.0, "up")
    assert run(tmp_path, "log", "repartition", "0").exit_code == Exit.USAGE
    assert "4 partitions already" in run(tmp_path, "log", "repartition", "4").output
    done = run(tmp_path, "log", "repartition", "8", "--as", "ann")
    assert (done.exit_code, "set log.partitions to 8" in done.output) == (Exit.DONE, True)
    with closing(open_control(f"sqlite:///{tmp_path / 'control.db'}")) as control:
        (said,) = control.audit.every(INSTALLATION)
    assert (said.actor, said.detail) == ("ann", {"from": 4, "to": 8})


def test_a_loss_is_accepted_in_the_words_that_named_it(tmp_path: Path) -> None:
    wrong = run(tmp_path, "log", "accept-loss", "all of it")
    assert (wrong.exit_code, "partition:first-last" in wrong.output) == (Exit.FAILED, True)
    open_control(f"sqlite:///{tmp_path / 'control.db'}").close()
    assert run(tmp_path, "log", "accept-loss", "0:6-7,3:1-2", "--as", "ann").exit_code == Exit.DONE
    with closing(open_control(f"sqlite:///{tmp_path / 'control.db'}")) as control:
        (said,) = control.audit.every(INSTALLATION)
    assert (said.actor, said.action, said.detail) == ("ann", "log.loss_accepted", {"lost": "0:6-7,3:1-2"})
