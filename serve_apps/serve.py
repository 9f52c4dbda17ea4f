"""The API on Ray Serve: one deployment whose replicas hold the application of serve_apps/api.

    os.environ.update(haproxy.environment(settings))     before ray is imported, in the process that starts it
    ray.init(...) ─► start_api(settings, port) ─► http://127.0.0.1:8080 ─► HAProxy ─► replicas ─► shards

Everything a replica needs it makes itself, from the settings: it can be killed at any time and comes back.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve._private import replica
from ray.serve._private.common import ReplicaState
from ray.serve.config import BackpressureConfig, HTTPOptions

from cluster.config import Settings
from serve_apps.api.app import build
from serve_apps.api.services import Services
from serve_apps.haproxy import SERVE_MARGIN_S
from serve_apps.services import make_services

APPLICATION = "api"
DEPLOYMENT = "query-api"
MakeServices = Callable[[Settings], Services]
"""Makes what a replica holds; called once in each replica's process, so it has to be one that can be pickled."""

_GRACE_S, _POLL_S = 5.0, 0.2
_FIRST_REPLICA_S = 120.0
_COME_BACK_S = 1.0


class Api:
    """One replica."""

    def __init__(self, settings: Settings, make: MakeServices) -> None:
        _keep_to_host(settings.query.host)
        self._services = make(settings)
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # an answer is thousands of small lists: the collector only walks them

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build(self._services)


def _keep_to_host(host: str) -> None:
    """Let the replica's server for other deployments listen on `host`; Ray opens it on all interfaces, unasked.

    It is started right after the replica's own class was made.
    """
    names = vars(replica)
    original = names["add_port_to_grpc_server"]
    names["add_port_to_grpc_server"] = lambda server, address: original(server, address.replace("[::]", host))


def application(settings: Settings, make: MakeServices = make_services, replicas: int = 1) -> Application:
    """The Serve application; requests over `ongoing_requests` queue, over `queued_requests` are answered 503.

    With `query.hosts`, each host gets one replica: those of hosts that are not there yet wait for them.
    """
    spread: dict[str, Any] = {"max_replicas_per_node": 1} if settings.query.hosts > 1 else {}
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=max(replicas, settings.query.hosts),
        max_ongoing_requests=settings.query.ongoing_requests,
        max_queued_requests=settings.query.queued_requests,
        backpressure_config=BackpressureConfig(retry_after_s=_COME_BACK_S),
        graceful_shutdown_timeout_s=_GRACE_S,
        ray_actor_options={"num_cpus": 0},
        **spread,
    )(serve.ingress()(Api))
    bound: Application = deployment.bind(settings, make)
    return bound


def start_api(
    settings: Settings, port: int | None = None, make: MakeServices = make_services, replicas: int = 1
) -> str:
    """Start Serve and the application on the connected Ray, wait until it answers, and return its address.

    Safe to call again: the application is replaced, host and port stay as they were first.
    """
    host, chosen = settings.query.host, port or settings.query.port
    options = HTTPOptions(
        host=host, port=chosen, request_timeout_s=settings.query.deadline_s + SERVE_MARGIN_S, keep_alive_timeout_s=60
    )
    serve.start(proxy_location="EveryNode", http_options=options)
    target = application(settings, make, replicas)
    if settings.query.hosts == 1:
        serve.run(target, name=APPLICATION, route_prefix="/")
        return f"http://{host}:{chosen}"
    wanted = serve.RunTarget(target=target, name=APPLICATION, route_prefix="/")
    serve.run_many([wanted], wait_for_applications_running=False)
    _wait_for_first_replica()
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"http://{address}:{chosen}"


def _wait_for_first_replica() -> None:
    """Other hosts may come later, or never. Raises TimeoutError."""
    end = time.monotonic() + _FIRST_REPLICA_S
    while True:
        found = serve.status().applications.get(APPLICATION)
        deployment = found.deployments.get(DEPLOYMENT) if found else None
        if deployment is not None and deployment.replica_states.get(ReplicaState.RUNNING):
            return
        if time.monotonic() >= end:
            raise TimeoutError(f"no replica of the API runs after {_FIRST_REPLICA_S:.0f} s")
        time.sleep(_POLL_S)


def stop_api() -> None:
    """End the application, then Serve. Safe to call again."""
    serve.shutdown()  # type: ignore[no-untyped-call]
