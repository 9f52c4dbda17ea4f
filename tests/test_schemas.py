"""The schemas of configs/ by a real registry: each version may follow the one before, and stays as it was released."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.streams.schemas import Schema
from services.spec import Running as Service
from tests.registered import SCHEMAS, Registered, opened

RELEASED = {"event.v1.avsc": "e5f6e3238e27f81a7ed77417e150a09d", "event.v1.json": "a57da2403b6c29e732215bd9a7b3a490"}
"""Fingerprints of versions that are out: a change is a version of its own."""
KINDS = {".avsc": "AVRO", ".json": "JSON"}


def versions(suffix: str) -> list[Path]:
    """Files of one kind, oldest version first."""
    found = [(int(re.findall(r"\.v(\d+)\.", path.name)[0]), path) for path in SCHEMAS.glob(f"event.v*{suffix}")]
    return [path for _, path in sorted(found)]


def test_released_versions_stay_as_they_are() -> None:
    files = [path for suffix in KINDS for path in versions(suffix)]
    assert {path.name: Schema(0, KINDS[path.suffix], path.read_text()).fingerprint for path in files} == RELEASED


@pytest.fixture
def registered(service: Callable[[str], Service]) -> Iterator[Registered]:
    """The run's registry."""
    yield from opened(service("registry"))


@pytest.mark.services
@pytest.mark.production
@pytest.mark.parametrize("suffix", KINDS)
def test_each_version_of_our_own_schemas_may_follow_the_one_before(
    registered: Registered, unique: str, suffix: str
) -> None:
    registered.rule(unique, "FULL_TRANSITIVE")
    registry, files = registered.registry, versions(suffix)
    registry.register(unique, KINDS[suffix], files[0].read_text())
    for path in files[1:]:
        assert registry.against(unique, KINDS[suffix], path.read_text()) == [], path.name
        registry.register(unique, KINDS[suffix], path.read_text())
    last = json.loads(files[-1].read_text())
    if suffix == ".avsc":
        last["fields"].append({"name": "needed", "type": "string"})
    else:
        last["required"].append("tenant")
    assert registry.against(unique, KINDS[suffix], json.dumps(last)), "the registry lets everything through"
