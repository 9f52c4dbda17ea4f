"""What is found where a value is held against what describes it: which part of it breaks what, as text for people.

The text is inert and short, whatever a record holds: nothing in it drives a terminal, turns text around or fills a
page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

FINDINGS_MOST = 20
_PATH_CHARACTERS, _FOUND_CHARACTERS, _WANTS_CHARACTERS, _SEEN_CHARACTERS = 200, 120, 300, 1_000
ABSENT = "nothing"


class Finding(NamedTuple):
    """One place that is wrong.

    Args:
        path: JSON Pointer into the value; empty: the value as a whole.
        found: what is there.
        wants: what the schema, or the rule, wants there.
    """

    path: str
    found: str
    wants: str


def finding(place: Iterable[object], found: str, wants: str) -> Finding:
    """A finding of texts that may be anything.

    Args:
        place: names and numbers from the outermost on.
    """
    steps = ("/" + str(step)[:_SEEN_CHARACTERS].replace("~", "~0").replace("/", "~1") for step in place)
    return Finding(
        _short("".join(islice(steps, _PATH_CHARACTERS)), _PATH_CHARACTERS),
        _short(found, _FOUND_CHARACTERS),
        _short(wants, _WANTS_CHARACTERS),
    )


def shown(value: Any) -> str:
    """A JSON value as text, or its beginning; what has parts is told by their number where it is large."""
    if isinstance(value, str):
        value = value[:_SEEN_CHARACTERS]
    elif isinstance(value, list | dict) and len(value) > _FOUND_CHARACTERS:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"


def at(value: Any, place: Iterable[object]) -> str:
    """What a value has at a place, as text."""
    for step in place:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return ABSENT
    return shown(value)


def _short(text: str, characters: int) -> str:
    text = text[:_SEEN_CHARACTERS]
    inert = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return inert if len(inert) <= characters else inert[: characters - 1] + "…"
