"""How a JSON Schema differs from an earlier one, for who reads by the earlier.

Whether all that one schema allows is allowed by another cannot be decided for every schema. Here the structure is
compared as far as it is said plainly: `type`, `properties`, `required`, `items`. What else differs is the registry's to
judge, which compares schemas of a subject by its own rule.
"""

from __future__ import annotations

from typing import Any

from cluster.streams.avro_changes import Changes
from cluster.streams.avro_shape import loaded
from cluster.streams.schemas import Schema

_DEPTH_MOST = 64


def json_changes(earlier: Schema, later: Schema) -> Changes:
    """The differences that can be told. Raises Rejected for a text that is no JSON."""
    changes = Changes()
    _compare(loaded(earlier.text), loaded(later.text), "", changes)
    return changes


def _compare(was: Any, now: Any, path: str, changes: Changes) -> None:
    if not isinstance(was, dict) or not isinstance(now, dict) or path.count(".") > _DEPTH_MOST:
        return
    at = path or "the value"
    before, after = _types(was), _types(now)
    if before and (new := (after or {"anything"}) - before - ({"integer"} if "number" in before else set())):
        changes.breaking.append(
            f"{at} may be written as {', '.join(sorted(new))}, and is read as {', '.join(sorted(before))}"
        )
        return
    mine, theirs = _inner(was), _inner(now)
    needed, still = _names(was.get("required")), _names(now.get("required"))
    for name in sorted(needed - still):
        changes.breaking.append(f"{path}.{name}".lstrip(".") + " need not be written, and has to be there")
    for name in sorted(mine.keys() & theirs.keys()):
        _compare(mine[name], theirs[name], f"{path}.{name}".lstrip("."), changes)
    added = [f"{path}.{name}".lstrip(".") for name in theirs if name not in mine]
    if was.get("additionalProperties") is False:
        changes.breaking += [f"{name} may be written, and is not read" for name in added]
    changes.added += added
    if "items" in was and "items" in now:
        _compare(was["items"], now["items"], f"{path}[]", changes)


def _types(schema: dict[str, Any]) -> set[str]:
    said = schema.get("type")
    return {said} if isinstance(said, str) else _names(said)


def _names(said: Any) -> set[str]:
    return {one for one in said if isinstance(one, str)} if isinstance(said, list) else set()


def _inner(schema: dict[str, Any]) -> dict[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}
