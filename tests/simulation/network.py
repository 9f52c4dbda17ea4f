"""The network between a client and a server: it loses requests, loses answers, delays and repeats."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

from cluster.errors import OutcomeUnknown, Retryable, Unavailable

T = TypeVar("T")


class Network:
    """What may go wrong between a client and a server. Delayed requests arrive when the scheduler says so."""

    def __init__(self, rnd: random.Random, trouble: float) -> None:
        self.rnd, self.trouble = rnd, trouble
        self.waits = random.Random(7)  # of its own: what else a seed brings about does not hang on who waits
        self.delayed: list[Callable[[], Any]] = []

    def call(self, up: Callable[[], bool], effect: Callable[[], T], wrote: bool) -> T:
        """One request and its answer.

        Raises:
            Unavailable: it never arrived (a read: or its answer was lost). OutcomeUnknown: nobody knows.
        """
        if not up():
            raise Unavailable("down")
        luck = self.rnd.random()
        if luck >= self.trouble:
            return effect()
        if not wrote:
            raise Unavailable("the network lost it")
        fate = self.rnd.randrange(4)
        if fate == 1:
            effect()
        elif fate == 2:
            self.delayed.append(effect)
        elif fate == 3:
            effect()
            self.delayed.append(effect)
        raise OutcomeUnknown("the answer was lost")

    def deliver_one(self) -> None:
        """One delayed request arrives, in any order; its answer goes nowhere."""
        if self.delayed:
            late = self.delayed.pop(self.rnd.randrange(len(self.delayed)))
            try:
                late()
            except Retryable:
                return
