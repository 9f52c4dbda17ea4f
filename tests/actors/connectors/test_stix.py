"""STIX: what each kind of object becomes; real bundles where they are."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from actors.connectors import BadRaw, FileLimits, FileSource, Item, mapping_from_pairs, open_source
from cluster.errors import Rejected

SHARED = Path(os.environ.get("INTELGRAPH_SHARED", Path(__file__).parents[4] / "shared")) / "data" / "stix"
UUID = "00000000-0000-4000-8000-00000000000"
IDENTITY, ACTOR, MALWARE, MARKING, RELATION, SIGHTING = (
    f"{kind}--{UUID}{n}"
    for n, kind in enumerate(["identity", "threat-actor", "malware", "marking-definition", "relationship", "sighting"])
)


def items(source: FileSource, after: tuple[int, ...] | None = None) -> list[Item]:
    return [item for batch in source.batches(after, 100, 1 << 20) for item in batch]


def bundle(path: Path, objects: list[Any]) -> Path:
    path.write_text(json.dumps({"type": "bundle", "id": f"bundle--{UUID}9", "objects": objects}))
    return path


def events(found: list[Item]) -> list[Any]:
    return [item.reason if isinstance(item, BadRaw) else json.loads(item.payload) for item in found]


def test_an_object_is_an_entity_with_relationships_of_its_references(tmp_path: Path) -> None:
    actor = {
        "type": "threat-actor", "id": ACTOR, "created": "2020-01-01T00:00:00Z", "modified": "2021-01-01T00:00:00Z",
        "name": "A", "revoked": True, "aliases": ["B", "C"], "created_by_ref": IDENTITY,
        "object_marking_refs": [MARKING, MARKING], "external_references": [{"source_name": "x"}],
        "tenant": "evil", "case": "evil", "_version": 9, "x_refs": ["no id"], "nothing": None,
    }  # fmt: skip
    found = items(open_source(bundle(tmp_path / "b.json", [actor]), defaults={"tenant": "t", "case": "c"}))
    assert [item.position for item in found] == [(1, 1), (1, 2), (1, 3)]
    base = {"tenant": "t", "case": "c", "op": "upsert", "event_time": "2021-01-01T00:00:00Z"}
    end = {"type": "threat-actor", "id": ACTOR}
    assert events(found) == [
        {**base, "kind": "entity", **end, "props": {
            "created": "2020-01-01T00:00:00Z", "modified": "2021-01-01T00:00:00Z", "name": "A", "revoked": True,
            "aliases": ["B", "C"], "external_references": [{"source_name": "x"}], "stix_tenant": "evil",
            "stix_case": "evil", "stix__version": 9, "x_refs": ["no id"]}},
        {**base, "kind": "relationship", "type": "created_by", "id": f"{ACTOR}:created_by", "from": end,
         "to": {"type": "identity", "id": IDENTITY}},
        {**base, "kind": "relationship", "type": "object_marking", "id": f"{ACTOR}:object_marking:{MARKING}",
         "from": end, "to": {"type": "marking-definition", "id": MARKING}},
    ]  # fmt: skip


def test_relationships_and_sightings(tmp_path: Path) -> None:
    relation = {"type": "relationship", "id": RELATION, "relationship_type": "uses", "source_ref": ACTOR,
                "target_ref": MALWARE, "created_by_ref": IDENTITY, "created": "2020-01-01T00:00:00Z"}  # fmt: skip
    sighting = {
        "type": "sighting",
        "id": SIGHTING,
        "sighting_of_ref": MALWARE,
        "where_sighted_refs": [IDENTITY],
        "count": 3,
    }
    found = events(items(open_source(bundle(tmp_path / "b.json", [relation, sighting]))))
    assert found[0] == {
        "op": "upsert", "kind": "relationship", "type": "uses", "id": RELATION,
        "from": {"type": "threat-actor", "id": ACTOR},
        "to": {"type": "malware", "id": MALWARE}, "event_time": "2020-01-01T00:00:00Z",
        "props": {"created_by_ref": IDENTITY, "created": "2020-01-01T00:00:00Z"},
    }  # fmt: skip
    assert found[1] == {"op": "upsert", "kind": "entity", "type": "sighting", "id": SIGHTING, "props": {"count": 3}}
    assert [(e["type"], e["to"]["id"]) for e in found[2:]] == [("sighting_of", MALWARE), ("where_sighted", IDENTITY)]


def test_bad_objects_are_dead_letters_and_the_bundle_goes_on(tmp_path: Path) -> None:
    good = {"type": "malware", "id": MALWARE, "name": "M"}
    dangling = {
        "type": "relationship",
        "id": RELATION,
        "relationship_type": "uses",
        "source_ref": "nobody",
        "target_ref": MALWARE,
    }
    found = items(open_source(bundle(tmp_path / "b.json", [7, {"type": "malware"}, dangling, good])))
    assert [(item.position, item.error_class) for item in found if isinstance(item, BadRaw)] == [
        ((1,), "decode"), ((2,), "schema"), ((3,), "schema"),
    ]  # fmt: skip
    assert "object 3: 'nobody' is no STIX id" in events(found)[2]
    assert found[3].position == (4, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no STIX bundle"), ('{"type":"indicator"}', "its type is 'indicator'"), ("[]", "no STIX bundle"),
     ("[" * 100_000, "no STIX bundle")],
)  # fmt: skip
def test_no_bundle(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(Rejected, match=message):
        items(open_source(path, format="stix"))


def test_bounds_and_mapping(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b.json", [{"type": "malware", "id": MALWARE, "x": "y" * 5000}])
    with pytest.raises(Rejected, match="the limit is 1,000"):
        open_source(path, limits=FileLimits(file_bytes=1000))
    packed = tmp_path / "b.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(Rejected, match="more than 1,000 bytes"):
        items(open_source(packed, limits=FileLimits(file_bytes=1000)))
    assert items(open_source(packed)) == items(open_source(path))
    with pytest.raises(Rejected, match="takes no mapping"):
        open_source(path, mapping=mapping_from_pairs(["type=x", "id={y}"]))


@pytest.mark.parametrize("name", ["ics-attack-15.1.json", "ics-attack-16.1.json", "mobile-attack-14.1.json"])
def test_real_bundles(name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    found = items(open_source(path, defaults={"tenant": "t", "case": "c"}))
    assert not [item for item in found if isinstance(item, BadRaw)]
    made = events(found)
    objects = json.loads(path.read_text())["objects"]
    assert {event["id"] for event in made} >= {one["id"] for one in objects}
    keys = [(event["kind"], event["type"], event["id"]) for event in made]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", event["type"]) for event in made)
    names = {prop for event in made for prop in event.get("props", {})}
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,127}", prop) for prop in names)
    middle = found[len(found) // 2].position
    assert items(open_source(path, defaults={"tenant": "t", "case": "c"}), middle) == found[len(found) // 2 + 1 :]
