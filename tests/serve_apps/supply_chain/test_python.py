"""Tenant `python` from an installation made up here: what is stated, in which order, and nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.errors import Unavailable
from serve_apps.supply_chain import content_digest, python_events, write_events
from serve_apps.supply_chain.python import _read_beside, module_of


def install(site: Path, name: str, files: dict[str, str], header: str = "", record: bool = True) -> None:
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{header}\n")
    if record:
        lines = [
            f"{path},sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,{len(text)}" for path, text in files.items()
        ]
        (folder / "RECORD").write_text("\n".join([*lines, "../../outside.py,,", "/etc/evil.py,,"]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site-packages"
    boom = "raise SystemExit('never run')\n"
    install(
        site, "Lib_B",
        {"lib_b/__init__.py": boom + "import os.path\n",
         "lib_b/core.py": "from . import native\nfrom lib_b import missing\n",
         "lib_b/native.cpython-311-x86_64-linux-gnu.so": "",
         "lib_b/bad.py": "import (\n",
         "data-dir/x.py": "import os\n"},
        "Author-email: Ann Lee <ann@x.org>\nLicense-Expression: MIT\nMaintainer: Ann Lee\nMaintainer-email: ANN@x.org",
    )  # fmt: skip
    install(
        site, "app-a",
        {"app_a.py": "import lib_b.core, nowhere\nfrom lib_b import core\ndef f():\n    import lib_b\n"},
        "Requires-Dist: lib.b>=1\nRequires-Dist: lib-b[fast]; extra == 'speed'\nLicense: MIT License",
    )  # fmt: skip
    install(site, "bare", {}, record=False)
    return site


def events(site: Path, workers: int = 1) -> list[dict[str, Any]]:
    return list(python_events(site, workers))


def relations(found: list[dict[str, Any]], kind: str) -> list[tuple[str, str, str]]:
    return [
        (e["case"], e["from"]["id"], e["to"]["id"]) for e in found if e["type"] == kind and e["kind"] == "relationship"
    ]


def entity(found: list[dict[str, Any]], case: str, kind: str, identity: str) -> dict[str, Any]:
    (one,) = [e for e in found if (e["case"], e["kind"], e["type"], e["id"]) == (case, "entity", kind, identity)]
    return dict(one.get("props", {}))


def test_what_is_stated(site: Path) -> None:
    found = events(site)
    assert sorted({event["case"] for event in found}) == ["app-a", "bare", "lib-b"]
    assert relations(found, "authored_by") == relations(found, "maintained_by") == [("lib-b", "lib-b", "ann@x.org")]
    assert relations(found, "licensed_under") == [("app-a", "app-a", "MIT"), ("lib-b", "lib-b", "MIT")]
    assert relations(found, "depends_on") == [("app-a", "app-a", "lib-b")] * 2
    assert relations(found, "has_version")[0] == ("app-a", "app-a", "app-a==1.0")
    assert relations(found, "imports") == [
        ("app-a", "app_a", "lib_b.core"), ("app-a", "app_a", "nowhere"), ("app-a", "app_a", "lib_b"),
        ("lib-b", "lib_b", "os.path"), ("lib-b", "lib_b.core", "lib_b.native"), ("lib-b", "lib_b.core", "lib_b"),
    ]  # fmt: skip
    assert entity(found, "app-a", "module", "nowhere") == {"origin": "absent"}
    assert entity(found, "app-a", "module", "lib_b.core") == {"origin": "distribution", "distribution": "lib-b"}
    assert entity(found, "lib-b", "module", "os.path") == {"origin": "stdlib"}
    assert entity(found, "lib-b", "module", "lib_b.native")["native"] is True
    assert "SyntaxError" in entity(found, "lib-b", "module", "lib_b.bad")["parse_error"]
    assert entity(found, "lib-b", "file", "lib_b/bad.py")["sha256"].startswith("e3b0c442")
    assert {e["to"]["id"] for e in found if e["type"] == "defines" and e["case"] == "lib-b"} == {
        "lib_b", "lib_b.core", "lib_b.native", "lib_b.bad",
    }  # fmt: skip


def test_the_format_holds(site: Path) -> None:
    found = events(site)
    assert [event["position"] for event in found] == list(range(1, len(found) + 1))
    keys = [(e["case"], e["kind"], e["type"], e["id"]) for e in found]
    assert len(set(keys)) == len(keys)
    stated = {(e["case"], e["type"], e["id"]) for e in found if e["kind"] == "entity"}
    for event in found:
        assert (event["tenant"], event["source"], event["op"]) == ("python", "python-packages", "upsert")
        assert not {"epoch", "event_time"} & set(event)
        if event["kind"] == "relationship":
            for end in (event["from"], event["to"]):
                assert (event["case"], end["type"], end["id"]) in stated


def test_the_same_installation_gives_the_same_bytes(site: Path, tmp_path: Path) -> None:
    one = write_events(python_events(site, workers=1), tmp_path / "one.jsonl")
    two = write_events(python_events(site, workers=2), tmp_path / "two.jsonl")
    assert one.digest == two.digest == content_digest(tmp_path / "one.jsonl")
    assert one.events == sum(one.counts.values()) == len(events(site))
    assert [json.loads(line) for line in (tmp_path / "one.jsonl").read_bytes().splitlines()] == events(site)
    (site / "app_a.py").write_text("import lib_b\n")
    assert write_events(python_events(site, 1), tmp_path / "one.jsonl").digest != two.digest


def test_progress_is_told(site: Path) -> None:
    told: list[tuple[int, int]] = []
    list(python_events(site, 1, lambda done, of: told.append((done, of))))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("old")

    def broken() -> Any:
        yield {"kind": "entity", "type": "x"}
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_events(broken(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.py", "a.b"), ("a/__init__.py", "a"), ("a.py", "a"), ("a/c.abi3.so", "a.c"), ("__init__.py", None),
     ("a-b/c.py", None), ("../a.py", None), ("/a.py", None), ("a/b.txt", None), ("a/.py", None)],
)  # fmt: skip
def test_modules_by_path(path: str, name: str | None) -> None:
    module = module_of(path)
    assert (module and module.name) == name


def test_a_process_that_ends_before_its_time_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    broken = cast(list[tuple[str, str]], [("no package",)])
    with pytest.raises(Unavailable, match="has ended"):
        list(_read_beside([broken, []], 2))
    assert "ValueError" in capfd.readouterr().err
