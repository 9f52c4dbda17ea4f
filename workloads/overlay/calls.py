"""Calls to actors: waits with a limit, and Ray's errors translated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectStoreFullError, RayActorError, RayError, RayTaskError

from cluster.errors import IntelGraphError, Overloaded, Unavailable


def results(references: Sequence[Any], timeout_s: float) -> list[Any]:
    """Values of the calls, in order; arrays are read-only views of the object store. Blocks.

    Raises:
        Unavailable: an actor died, or the cluster did not answer in time; what actors held is lost, begin again.
        Overloaded: the object store is full.
        IntelGraphError: what the call raised, as it raised it. Programmer errors come as Ray's RayTaskError.
    """
    try:
        found: list[Any] = ray.get(list(references), timeout=timeout_s)
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, IntelGraphError):
            raise cause from error
        raise
    except GetTimeoutError as error:
        raise Unavailable(
            f"overlay actors did not answer within {timeout_s:.0f} s; look at the Ray dashboard"
        ) from error
    except RayActorError as error:
        raise Unavailable("an overlay actor died; the job begins again from the files") from error
    except ObjectStoreFullError as error:
        raise Overloaded("Ray's object store is full; run fewer jobs at once or give it more memory", 10.0) from error
    except RayError as error:
        raise Unavailable(f"overlay job: {error}") from error
    return found
