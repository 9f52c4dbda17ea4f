"""Leases that are kept while something long goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import TypeVar

from cluster.stores.control_leases import Leases

T = TypeVar("T")
_LOOK_S = 0.5


class Kept:
    """Renews leases of the control store.

    Args:
        held: name → token.
        ttl_s: they are renewed three times as often.
    """

    def __init__(self, leases: Leases, held: Mapping[str, int], ttl_s: float) -> None:
        self._leases, self._held, self._ttl_s = leases, held, ttl_s

    def during(self, step: Callable[[], T], look: Callable[[], None]) -> T:
        """What `step` returns. It runs in a thread of its own, and `look` is called here now and then.

        Raises:
            Fenced: another has taken a lease over. The step is left to itself: what it does next is refused where the
                lease's token is asked for. So it is if `look` raises, or the caller is interrupted.
        """
        done = _begun(step)
        renewed = -self._ttl_s
        while not wait([done], timeout=min(_LOOK_S, self._ttl_s / 3)).done:
            if time.monotonic() - renewed >= self._ttl_s / 3:
                renewed = time.monotonic()
                for name, token in self._held.items():
                    self._leases.renew(name, token, self._ttl_s, time.time())
            look()
        return done.result()


def _begun(step: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(step())
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="kept", daemon=True).start()
    return future
