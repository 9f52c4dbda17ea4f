"""Joining the running Ray cluster from a command, for jobs that want its workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.errors import Unavailable

if TYPE_CHECKING:
    from serve_apps.cli.session import Session

NAMESPACE = "intelgraph"
_CALL_S = 10.0


@contextmanager
def joined(session: Session) -> Iterator[None]:
    """The cluster of the running node, for a `with` block.

    Raises:
        NotUp: the system is down. Unavailable: Ray does not answer.
    """
    node = session.node
    import ray  # not before: it reads its environment when it is imported

    try:
        ray.init(
            address=node.ray_address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR,
            _node_ip_address=node.ray_address.rpartition(":")[0],
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise Unavailable(f"Ray does not answer at {node.ray_address}: see `intelgraph status`", 5.0) from error
    try:
        yield
    finally:
        ray.shutdown()


def call(actor: str, method: str, *arguments: Any) -> Any:
    """One call of a named actor, within `joined`. Raises Unavailable."""
    import ray

    try:
        handle = ray.get_actor(actor, namespace=NAMESPACE)
        return ray.get(getattr(handle, method).remote(*arguments), timeout=_CALL_S)
    except (ValueError, ray.exceptions.RayError) as error:
        raise Unavailable(f"{actor} does not answer ({type(error).__name__}); it is started again by itself") from error
