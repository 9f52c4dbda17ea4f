"""What the node has to tell commands and `/metrics`, as small files of the state directory: display, no truth.

Each is replaced as a whole whenever it changes; who loses one has it again after one look.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def tell(state_dir: Path, name: str, document: object) -> None:
    """Replaces what is told under a name. Raises OSError."""
    aside = state_dir / f".{name}.json.{os.getpid()}"
    aside.write_text(json.dumps(document))
    aside.replace(state_dir / f"{name}.json")


def told(state_dir: Path, name: str) -> Any:
    """What was told last; None: nothing."""
    try:
        return json.loads((state_dir / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def forget(state_dir: Path, name: str) -> None:
    """Nothing is told any more. Safe to call twice."""
    (state_dir / f"{name}.json").unlink(missing_ok=True)
