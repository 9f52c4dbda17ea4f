"""One node at a time on a control store that several hosts reach: see `cluster.stores.control_tenure`."""

from __future__ import annotations

import threading
import time

from cluster.errors import Conflict
from cluster.stores.control_database import ControlDatabase
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.node")
LOOK_S, TAKE_S, LOST_S = 1.0, 30.0, 60.0
"""So often a node looks whether the store is still its own. So long one that starts, and one that works, wait for what
may be the rest of a session whose host is gone: the server ends it within 25 seconds."""


class NodeTenure:
    """This node's right to work on its control store.

    Attributes:
        lost_to: what says that another node has it, once that is sure; then this one has to stop, and to leave the
            store as it is.
    """

    def __init__(self, database: ControlDatabase, stopping: threading.Event) -> None:
        self._database, self._stopping = database, stopping
        self.lost_to: Conflict | None = None

    def take(self) -> None:
        """Waits for it a while. Raises Conflict where another node goes on working, Unavailable as the store does."""
        end, said = time.monotonic() + TAKE_S, False
        while True:
            try:
                return self._database.take_tenure()
            except Conflict as error:
                if time.monotonic() > end or self._stopping.wait(LOOK_S):
                    raise
                if not said:
                    LOG.warning("control_store_taken", reason=str(error), wait_s=TAKE_S)
                said = True

    def keep(self) -> None:
        """Looks until the node stops, or has to: two nodes would start two sets of writers. For a thread."""
        held, said = time.monotonic(), False
        while not self._stopping.wait(LOOK_S):
            try:
                self._database.take_tenure()
                held, said = time.monotonic(), False
            except Conflict as error:
                if time.monotonic() - held > LOST_S:
                    self.lost_to = error
                    self._stopping.set()
            except Exception as error:  # it does not answer, of which others complain; a thread that dies keeps nothing
                if not said:
                    LOG.warning("control_store_away", reason=str(error))
                said = True
