from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve_apps.cli.installation import Installation


@pytest.fixture(scope="package")
def installed() -> Iterator[Installation]:
    """One installation for all tests of this folder that need a running system; they start it if it is down."""
    state_dir = Path(tempfile.mkdtemp(prefix="ig"))
    installation = Installation(state_dir)
    try:
        yield installation
    finally:
        with installation.python:
            installation.run("down")
        shutil.rmtree(state_dir)
