from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve_apps.cli.installation import Installation, temporary


@pytest.fixture(scope="package")
def installed() -> Iterator[Installation]:
    """One installation for all tests of this folder that need a running system; they start it if it is down."""
    with temporary() as installation:
        yield installation
