"""Tenant `debian` from a list of packages written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve_apps.supply_chain import debian_events

STATUS = """Package: libfoo1
Status: install ok installed
Priority: optional
Section: libs
Installed-Size: 120
Maintainer: Foo Team <Foo@Lists.example>
Architecture: amd64
Source: foo (1.0)
Version: 1.0+b1
Depends: libc6 (>= 2.14), default-mta | mail-transport-agent
Pre-Depends: dpkg:any
Recommends: foo-doc
Description: the foo library
 with a longer text: and a colon
 .
Homepage: https://example.org

Package: foo
Status: install ok installed
Section: utils
Maintainer: Foo Team <foo@lists.example>
Architecture: amd64
Version: 1.0
Depends: libfoo1 (= 1.0)

Package: gone
Status: deinstall ok config-files
Version: 1

garbage line
Package: solo
Status: install ok installed
Version: 3
"""


def events(root: Path) -> list[dict[str, Any]]:
    return list(debian_events(root))


def root_with(root: Path, status: str) -> Path:
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text(status)
    return root


def test_what_is_stated(tmp_path: Path) -> None:
    found = events(root_with(tmp_path, STATUS))
    assert [event["position"] for event in found] == list(range(1, len(found) + 1))
    assert sorted({event["case"] for event in found}) == ["foo", "solo"]
    relations = [
        (e["type"], e["from"]["id"], e["to"]["id"], e.get("props")) for e in found if e["kind"] == "relationship"
    ]
    assert [one for one in relations if one[0] == "depends_on"] == [
        ("depends_on", "foo", "libfoo1", {"relation": "depends", "specifier": "= 1.0", "optional": False}),
        ("depends_on", "libfoo1", "dpkg", {"relation": "pre-depends", "architecture": "any", "optional": False}),
        ("depends_on", "libfoo1", "libc6", {"relation": "depends", "specifier": ">= 2.14", "optional": False}),
        ("depends_on", "libfoo1", "default-mta", {"relation": "depends", "optional": False, "choice": 1,
                                                  "alternatives": "default-mta | mail-transport-agent"}),
        ("depends_on", "libfoo1", "mail-transport-agent", {"relation": "depends", "optional": False, "choice": 2,
                                                           "alternatives": "default-mta | mail-transport-agent"}),
        ("depends_on", "libfoo1", "foo-doc", {"relation": "recommends", "optional": True}),
    ]  # fmt: skip
    assert [one[2] for one in relations if one[0] == "maintained_by"] == ["foo@lists.example"]
    assert [one[1:3] for one in relations if one[0] == "builds"] == [
        ("foo", "foo"),
        ("foo", "libfoo1"),
        ("solo", "solo"),
    ]
    (library,) = [e for e in found if e["kind"] == "entity" and (e["type"], e["id"]) == ("package", "libfoo1")]
    assert library["props"]["summary"] == "the foo library"
    assert library["props"]["installed_kib"] == 120
    keys = [(e["case"], e["kind"], e["type"], e["id"]) for e in found]
    assert len(set(keys)) == len(keys)
    assert events(tmp_path) == found


def test_no_list_no_events(tmp_path: Path) -> None:
    assert events(tmp_path) == []


def test_this_machine() -> None:
    if not Path("/var/lib/dpkg/status").is_file():
        pytest.skip("this machine has no dpkg list")
    found = events(Path("/"))
    stated = {(e["case"], e["type"], e["id"]) for e in found if e["kind"] == "entity"}
    assert len(stated) > 100
    for event in found:
        if event["kind"] == "relationship":
            assert (event["case"], event["from"]["type"], event["from"]["id"]) in stated
            assert (event["case"], event["to"]["type"], event["to"]["id"]) in stated
