"""Ray whose calls get lost, and the system's actors on it, in a process of its own.

    with LossyRay(system.settings, losses(seed)) as node:
        node.load(path, tenant, source) # the ingest worker loads a file, as for `intelgraph ingest`
        node.lost()                     # how many of Ray's calls were lost by now, in each of the three ways

Ray reads what it is to lose when a process of it begins, so who calls has to be such a process, too. Each process loses
by itself: first of each kind as many as the seed says, then by chance.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from actors.supervisor import plain
from cluster.config import Settings
from tests.faults.supervised import START_S

_ROOT = Path(__file__).parents[2]
_SAID = {
    "Inject RPC request failure for": "request",
    "Inject RPC response failure for": "response",
    "Inject RPC response failure while request in flight for": "in flight",
}
"""What a process of Ray writes into its log when it loses a call, and which way that is."""
WAYS = tuple(_SAID.values())
PUSHED = "CoreWorkerService.grpc_client.PushTask"
"""What carries a call of an actor's method, and an actor's creation."""
_AROUND = (
    "CoreWorkerService.grpc_client.KillActor",
    "NodeManagerService.grpc_client.KillLocalActor",
    "NodeManagerService.grpc_client.RequestWorkerLease",
    "NodeManagerService.grpc_client.ReturnWorkerLease",
    "ray::rpc::ActorInfoGcsService.grpc_client.CreateActor",
    "ray::rpc::ActorInfoGcsService.grpc_client.GetActorInfo",
    "ray::rpc::ActorInfoGcsService.grpc_client.GetNamedActorInfo",
    "ray::rpc::ActorInfoGcsService.grpc_client.KillActorViaGcs",
    "ray::rpc::ActorInfoGcsService.grpc_client.RegisterActor",
)
"""What it takes to start an actor, find it and end it; Ray itself makes each again."""
_PERCENT = 10
_ANSWER_S = 600
_QUICK = {
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_grpc_client_check_connection_status_interval_milliseconds": "100",
    "RAY_timeout_ms_task_wait_for_death_info": "100",
}
"""Ray waits longer until it is up, on a busy machine, and not a second each until it makes a lost call again or says
that it is lost."""


def losses(seed: int) -> str:
    """What Ray is told to lose: first of each call as many as the seed says, then a tenth in each way."""
    rnd = random.Random(seed)
    told = {PUSHED: _lost({way: rnd.randint(1, 2) for way in _FIELDS})}
    return json.dumps(told | {call: _lost({rnd.choice(_FIELDS): 1}) for call in _AROUND})


_FIELDS = ("req", "resp", "in_flight")


def _lost(first: dict[str, int]) -> dict[str, int]:
    by_chance = {f"{way}_failure_prob": _PERCENT for way in _FIELDS}
    return {"num_failures": -1, **by_chance, **{f"num_lower_bound_{way}_failures": n for way, n in first.items()}}


class LossyRay:
    """See the module. For one thread.

    Args:
        lost: as `losses` says it.
    """

    def __init__(self, settings: Settings, lost: str) -> None:
        self._settings, self._lost = settings, lost
        self._process: subprocess.Popen[str] | None = None
        self._logs = Path()

    def __enter__(self) -> LossyRay:
        environment = {**os.environ, **_QUICK, "RAY_AUTH_MODE": "disabled", "RAY_testing_rpc_failure": self._lost}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            env=environment, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        try:
            self._logs = Path(self._asked(plain(self._settings))["logs"])
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        try:
            self._process.communicate(timeout=START_S)
        finally:
            self._process.kill()
            self._process.wait()

    def load(self, path: Path, tenant: str, source: str) -> dict[str, Any]:
        """A file, through the ingest worker: its `Loaded`, or `error`, the class of what was raised, and `reason`."""
        return self._asked({"path": str(path), "tenant": tenant, "source": source})

    def lost(self) -> Counter[tuple[str, str]]:
        """How many calls were lost by now, by name and way."""
        found = Counter[tuple[str, str]]()
        for path in self._logs.iterdir():
            for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
                for said, way in _SAID.items():
                    if said in line:
                        found[line.rpartition(" ")[2], way] += 1
        return found

    def _asked(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        late = threading.Timer(_ANSWER_S, self._process.kill)
        late.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            late.cancel()
        assert answer, f"the process with Ray has gone, or did not answer in {_ANSWER_S} s: {self._process.wait()}"
        found: dict[str, Any] = json.loads(answer)
        return found


def serve() -> None:
    """What that process does: reads settings, then requests of loads, a JSON object a line, and answers each."""
    import ray

    from actors.ingest_actor import LoadRequest, load_file
    from actors.stack import Stack
    from tests.faults.supervised import Supervised

    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    stack = Stack(Settings.model_validate_json(sys.stdin.readline()))
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="tests")
    try:
        with Supervised(stack):
            print(json.dumps({"logs": f"{context.address_info['session_dir']}/logs"}), file=answers, flush=True)
            for line in sys.stdin:
                try:
                    told: dict[str, Any] = asdict(load_file(LoadRequest(**json.loads(line))))
                except Exception as error:
                    told = {"error": type(error).__name__, "reason": str(error)}
                print(json.dumps(told), file=answers, flush=True)
    finally:
        ray.shutdown()
