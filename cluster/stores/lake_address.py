"""Where a lake is, and a hold on one of its versions: what those name who may never open one.

The lake's library takes a second of CPU to import: it is imported when a lake is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.config import LakeSettings
from cluster.errors import NotFound

if TYPE_CHECKING:
    from cluster.stores.lake import Lake


class Pin(NamedTuple):
    """A hold on a table version: while it is there, the version can be read.

    Args:
        version: None where the table was empty.
    """

    name: str
    version: int | None


class LakeAddress(NamedTuple):
    """Where a lake is, for a process that opens it anew."""

    folder: Path
    settings: LakeSettings

    def open(self) -> Lake:
        """The lake, which has to be there. Raises as `Lake.open`."""
        from cluster.stores.lake import Lake

        return Lake.open(self.folder, create=False, settings=self.settings)

    def find(self) -> Lake | None:
        """The lake, where there is one. Raises as `Lake.open`, but for NotFound."""
        try:
            return self.open()
        except NotFound:
            return None
