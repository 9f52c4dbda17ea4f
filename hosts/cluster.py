"""A cluster on hosts of this machine: see the package."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.embedded.passwords import write_private
from hosts import production, programs
from hosts.cluster_file import for_hosts
from hosts.host import CHECKOUT, HOME, Place, first_process, host, inside
from hosts.network import Network
from services.catalogue import CATALOGUE
from services.launching import listens
from services.runner import Services
from services.spec import Service

OPERATOR, HEAD, WORKERS = "operator", "head", ("worker-1", "worker-2")
NAMES = (OPERATOR, HEAD, *WORKERS)
NODES = (HEAD, *WORKERS)
SERVICES = "services"
API_PORT = 8080
_SHARED = "state"
_POLL_S, _SSH_S, _UP_S, _JOIN_S, _DOWN_S, _WORKERS_END_S = 0.2, 60.0, 900.0, 600.0, 300.0, 90.0
_NOT_COPIED = (".git", ".venv", ".services", ".cluster", ".intelgraph", "__pycache__", ".*_cache", "data", "results")
CLUSTER = "cd ~/intelgraph && ray {} ray-cluster.yaml"


class HostCluster:
    """Hosts, and the cluster on them.

    Args:
        folder: of everything; goes with `down`.
        checkout: what runs on the hosts.
        artifacts: where fetched programs lie; they stay.
    """

    def __init__(self, folder: Path, checkout: Path, artifacts: Path) -> None:
        self.folder, self._checkout, self._artifacts = folder.resolve(), checkout.resolve(), artifacts.resolve()
        self.state_dir = self.folder / _SHARED
        self.network = Network(self.folder, NAMES)

    # --- up and down ---

    def up(self, *, embedded: bool = False) -> None:
        """Make the hosts, start IntelGraph's cluster on them, and wait until every host is in it.

        Args:
            embedded: with the embedded parts, on the head, instead of production ones.

        Raises:
            NotInstallable: something is missing here. RuntimeError: something did not come up.
        """
        self.make_hosts()
        self.ray_up({} if embedded else self.start_parts())

    def make_hosts(self) -> None:
        """Network, keys and hosts, before anything of Ray. Raises as `up`."""
        programs.require()
        programs.install(self._artifacts / "hosts")
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.network.make()
        self._make_keys()
        for name in NAMES:
            self.start_host(name)
        self._prepare_operator()

    def start_parts(self) -> dict[str, str]:
        """The production parts; returns the settings that name them. Raises as `up`."""
        values = production.start(self.services(), self.state_dir)
        return values | {"INTELGRAPH__RAY__ACTORS": "spread", "INTELGRAPH__STREAMS__WORKERS_MIN": str(len(NODES))}

    def ray_up(self, settings: Mapping[str, str]) -> None:
        """`ray up` with these settings, and wait until every host answers. Raises RuntimeError."""
        everywhere = {"INTELGRAPH__QUERY__HOST": "0.0.0.0", "INTELGRAPH__QUERY__HOSTS": str(len(NODES))}  # noqa: S104
        home = self._home(OPERATOR)
        write_private(home / ".ray" / "intelgraph.env", production.exports({**everywhere, **settings}))
        self.ray_up_again()
        self._wait_for_api()

    def ray_up_again(self) -> None:
        """`ray up` with the settings of last time; workers join later. Raises RuntimeError."""
        self.run(OPERATOR, CLUSTER.format("up -y --no-config-cache"), _UP_S)

    def down(self) -> None:
        """End everything and remove it. Safe to call again, after a failed start too."""
        if self.pid(OPERATOR) is not None and self.pid(HEAD) is not None:
            with suppress(RuntimeError, subprocess.TimeoutExpired):  # what does not stop is ended below
                self.ray_down()
        self.remove()

    def ray_down(self) -> None:
        """Stop IntelGraph and Ray in order, as ray-cluster.yaml says; the hosts stay.

        Raises:
            RuntimeError, subprocess.TimeoutExpired: it is not down.
        """
        stop = "'. ~/.intelgraph/environment; intelgraph down; ray stop'"
        self.run(OPERATOR, f"{CLUSTER.format('exec')} {stop}", _DOWN_S)
        self.run(OPERATOR, CLUSTER.format("down -y"), _DOWN_S)
        end = time.monotonic() + _WORKERS_END_S
        while running := [name for name in NODES if "raylet" in self.run(name, "ps -eo comm")]:
            if time.monotonic() >= end:
                raise RuntimeError(f"Ray goes on running on {', '.join(running)}")
            time.sleep(_POLL_S)

    def remove(self) -> None:
        """End hosts and parts, whatever they do; then bridge and folder go."""
        self._hosts().stop_all()
        if (self.folder / SERVICES).is_dir():
            Services(self.folder / SERVICES, CATALOGUE, self._artifacts).stop_all()
        self.network.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- hosts ---

    def start_host(self, name: str) -> None:
        """Start a host and plug it in. Safe to call again. Raises RuntimeError."""
        if self._hosts().find(name) is not None:
            return
        self._hosts().start(name)
        pid, address = self.pid(name), self.network.address(name)
        if pid is None:
            raise RuntimeError(f"{name} has ended; {self.folder / name / 'server.log'} says why")
        self.network.plug(name, pid)
        end = time.monotonic() + _SSH_S
        while not listens(22, address):
            if time.monotonic() >= end:
                raise RuntimeError(f"{name} does not answer; {self.folder / name / 'server.log'} says why")
            time.sleep(_POLL_S)

    def kill_host(self, name: str) -> None:
        """As a power cut would: every process of the host ends at once."""
        self._hosts().kill(name)

    def pid(self, name: str) -> int | None:
        """The first process of a host, as this machine counts; None where the host is down."""
        return first_process(self.folder / name)

    def command(self, name: str, line: str) -> list[str]:
        """The command that has a host's shell run a line.

        Raises:
            RuntimeError: the host is down.
        """
        pid = self.pid(name)
        if pid is None:
            raise RuntimeError(f"{name} is down")
        return inside(pid, self._checkout / ".venv" / "bin", ["bash", "-c", line])

    def run(self, name: str, line: str, timeout_s: float = 120.0) -> str:
        """What a line of shell, run in a host, prints.

        Raises:
            RuntimeError: it failed; the message is the end of what it said.
        """
        done = subprocess.run(
            self.command(name, line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {line}\n{done.stdout[-4_000:]}")
        return done.stdout

    def intelgraph(self, name: str, arguments: str, timeout_s: float = 120.0) -> str:
        """What `intelgraph` prints in a host. Raises RuntimeError."""
        return self.run(name, f"cd ~ && . ~/.intelgraph/environment && intelgraph {arguments}", timeout_s)

    def api(self, name: str) -> str:
        """The API's address on a host."""
        return f"http://{self.network.address(name)}:{API_PORT}"

    def services(self) -> Services:
        """The production parts, on the bridge's address."""
        return Services(self.folder / SERVICES, CATALOGUE, self._artifacts, listen=self.network.address())

    def left(self) -> list[str]:
        """What there is of all this: processes, bridge and cables, the folder."""
        folder = os.fsencode(self.folder)
        running = [p.name for p in Path("/proc").glob("[0-9]*") if _names(p, folder)]
        return [*running, *self.network.left(), *([str(self.folder)] if self.folder.exists() else [])]

    # --- what they are made of ---

    def _hosts(self) -> Services:
        prefix = self.network.prefix
        addresses = {name: self.network.address(name) for name in NAMES} if prefix else dict.fromkeys(NAMES, "")
        place = Place(self._checkout, self.state_dir, self._artifacts / "hosts" / "bin", self.folder)
        catalogue: dict[str, Service] = {name: host(name, addresses, place, node=name in NODES) for name in NAMES}
        return Services(self.folder, catalogue, self._artifacts)

    def _home(self, name: str) -> Path:
        return self.folder / name / HOME[1:]

    def _make_keys(self) -> None:
        keys = self.folder / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        for name in ("host_key", "login"):
            if not (keys / name).exists():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "trial", "-f", str(keys / name)]
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        shutil.copy(keys / "login.pub", keys / "authorized_keys")

    def _prepare_operator(self) -> None:
        """The operator's copy of the checkout, with the cluster file for these hosts, key and token."""
        home, copy = self._home(OPERATOR), self.folder / OPERATOR / CHECKOUT[1:]
        shutil.copytree(self._checkout, copy, ignore=shutil.ignore_patterns(*_NOT_COPIED), dirs_exist_ok=True)
        made = int((self._checkout / ".venv" / ".uv").stat().st_mtime) - 1
        for file in ("Makefile", *(path.name for path in copy.glob("requirements*.txt"))):
            os.utime(copy / file, (made, made))  # `.venv` is this checkout's: nothing of it is to be made anew
        addresses = [self.network.address(name) for name in NODES]
        (copy / "ray-cluster.yaml").write_text(
            for_hosts(self._checkout / "ray-cluster.yaml", addresses[0], addresses[1:])
        )
        write_private(home / ".ssh" / "id_ed25519", (self.folder / "keys" / "login").read_text())
        (home / ".ray").mkdir(mode=0o700, exist_ok=True)
        write_private(home / ".ray" / "auth_token", secrets.token_hex(32))

    def _wait_for_api(self) -> None:
        waiting: Sequence[str] = NODES
        end = time.monotonic() + _JOIN_S
        while waiting := [name for name in waiting if not listens(API_PORT, self.network.address(name))]:
            if time.monotonic() >= end:
                raise RuntimeError(f"the API does not answer on {', '.join(waiting)} after {_JOIN_S:.0f} s")
            time.sleep(_POLL_S)


def _names(process: Path, folder: bytes) -> bool:
    """Whether a process of this machine was started for this folder: it is in its command, or its working folder."""
    try:
        command = (process / "cmdline").read_bytes()
        return folder in command or os.fsencode((process / "cwd").readlink()).startswith(folder)
    except OSError:
        return False
