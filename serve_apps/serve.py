"""The API on Ray Serve: one deployment whose replicas hold the application of serve_apps/api.

    os.environ.update(haproxy.environment(settings))     before ray is imported, in the process that starts it
    ray.init(...) ─► start_api(settings, port) ─► http://127.0.0.1:8080 ─► HAProxy ─► replicas ─► shards

Everything a replica needs it makes itself, from the settings: it can be killed at any time and comes back.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve._private import replica
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

_GRACE_S = 5.0
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
    """The Serve application; requests over `ongoing_requests` queue, over `queued_requests` are answered 503."""
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=replicas,
        max_ongoing_requests=settings.query.ongoing_requests,
        max_queued_requests=settings.query.queued_requests,
        backpressure_config=BackpressureConfig(retry_after_s=_COME_BACK_S),
        graceful_shutdown_timeout_s=_GRACE_S,
        ray_actor_options={"num_cpus": 0},
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
    serve.start(http_options=options)
    serve.run(application(settings, make, replicas), name=APPLICATION, route_prefix="/")
    return f"http://{host}:{chosen}"


def stop_api() -> None:
    """End the application, then Serve. Safe to call again."""
    serve.shutdown()  # type: ignore[no-untyped-call]
