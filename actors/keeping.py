"""Leases that are kept while something long goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Self, TypeVar

from cluster.errors import Fenced
from cluster.stores.control_leases import Leases
from cluster.telemetry.logs import Log

LOG = Log("intelgraph.leases")
T = TypeVar("T")
_LOOK_S = 0.5


class Kept:
    """Renews leases of the control store for a `with` block, whatever goes on in it.

    Args:
        held: name → token.
        ttl_s: they are renewed three times as often.
    """

    def __init__(self, leases: Leases, held: Mapping[str, int], ttl_s: float) -> None:
        self._leases, self._held, self._ttl_s = leases, held, ttl_s
        self._stopping, self._lost = threading.Event(), Future[None]()
        self._thread = threading.Thread(target=self._renew, name="leases kept", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def during(self, step: Callable[[], T], look: Callable[[], None]) -> T:
        """What `step` returns. It runs in a thread of its own, and `look` is called here now and then.

        Raises:
            Fenced: another has taken a lease over. The step is left to itself: what it does next is refused where the
                lease's token is asked for. So it is if `look` raises, or the caller is interrupted.
        """
        done = _begun(step)
        either: list[Future[Any]] = [done, self._lost]
        while True:
            ended = wait(either, min(_LOOK_S, self._ttl_s / 3), FIRST_COMPLETED).done
            if done in ended:
                return done.result()
            if ended:
                self._lost.result()
            look()

    def _renew(self) -> None:
        said = False
        while not self._stopping.is_set():
            try:
                for name, token in self._held.items():
                    self._leases.renew(name, token, self._ttl_s, time.time())
                said = False
            except Fenced as error:
                self._lost.set_exception(error)
                return
            except Exception as error:  # a store that does not answer: they may outlast it, else that is found out
                if not said:
                    LOG.warning("leases_not_renewed", reason=str(error))
                said = True
            self._stopping.wait(self._ttl_s / 3)


def _begun(step: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(step())
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="kept", daemon=True).start()
    return future
