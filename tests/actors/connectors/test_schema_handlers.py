"""Which handler reads which version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from actors.connectors.schema_handlers import Handlers
from cluster.errors import Rejected


def handler(first: int, last: int | None, subject: str = "s") -> Any:
    return SimpleNamespace(subject=subject, first_version=first, last_version=last)


def test_each_version_has_one_handler_or_none_has_any() -> None:
    handlers, one, two = Handlers(), handler(1, 2), handler(4, None)
    handlers.register(two)
    handlers.register(one)
    handlers.register(handler(1, 1, "other"))
    assert [handlers.of("s", version) for version in (1, 2, 4, 99)] == [one, one, two, two]
    assert handlers.of("foreign", 1) is None
    for version in (0, 3):
        with pytest.raises(Rejected, match=f"no handler reads version {version}"):
            handlers.of("s", version)


@pytest.mark.parametrize("second", [handler(2, 2), handler(0, None), handler(3, 4), handler(1, 3), handler(2, 9)])
def test_two_handlers_of_one_version_are_refused(second: Any) -> None:
    handlers = Handlers()
    handlers.register(handler(2, 3))
    with pytest.raises(Rejected, match="two handlers"):
        handlers.register(second)
