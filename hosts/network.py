"""The bridge that hosts hang on, and their addresses: the bridge has .1, hosts have .2 and on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BLOCKS = 256
_RULE = ("pref", "86", "from")
"""What rules of ours begin with; an address follows."""


class Network:
    """The network of one folder's hosts. Its names follow from the folder, so whoever asks again finds it.

    Args:
        folder: of the hosts.
        names: of the hosts, in the order of their addresses.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
        self._id, self._first, self._names = digest[:6], int(digest[:2], 16), names
        self.bridge = f"ig{self._id}"

    @property
    def prefix(self) -> str | None:
        """The first three numbers of all addresses; None where there is no bridge."""
        for link in _ask("addr"):
            if link["ifname"] == self.bridge:
                for address in link["addr_info"]:
                    return str(address["local"]).rpartition(".")[0]
        return None

    def make(self) -> None:
        """The bridge, up, with an address of a block that nobody here uses. Safe to call again.

        Raises:
            RuntimeError: it cannot be made.
        """
        if self.prefix is not None:
            return
        self.remove()
        ip("link", "add", self.bridge, "address", self._hardware_address(0), "type", "bridge")
        ip("addr", "add", f"{self._free_prefix()}.1/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    def _hardware_address(self, number: int) -> str:
        """Always the same: else who has talked to a host that died goes on sending to what it had, for 10 s and more
        after it has come back; and a bridge without one of its own changes its with the cables."""
        return ":".join(["02:00", *(self._id[at : at + 2] for at in (0, 2, 4)), f"{number:02x}"])

    def _free_prefix(self) -> str:
        used = {".".join(a["local"].split(".")[:3]) for link in _ask("addr") for a in link.get("addr_info", ())}
        used |= {".".join(route["dst"].split(".")[:3]) for route in _ask("route")}
        wanted = (f"10.86.{(self._first + n) % _BLOCKS}" for n in range(_BLOCKS))
        return next(prefix for prefix in wanted if prefix not in used)

    def address(self, name: str = "") -> str:
        """A host's address; without a name that of this machine on the bridge.

        Raises:
            RuntimeError: there is no bridge.
        """
        prefix = self.prefix
        if prefix is None:
            raise RuntimeError("there is no bridge: the hosts are down")
        return f"{prefix}.{self._names.index(name) + 2 if name else 1}"

    def cable(self, name: str) -> str:
        """This machine's end of a host's cable: `ip link set … down` pulls it."""
        return f"{self.bridge}-{self._names.index(name)}"

    def plug(self, name: str, pid: int) -> None:
        """A cable from the bridge into a host, whose first process has this pid."""
        address = self.address(name)
        inside = ("nsenter", "--target", str(pid), "--net", "ip")
        if self.cable(name) in self.left():  # of the host before it died: the kernel takes its time
            subprocess.run(["ip", "link", "del", self.cable(name)], capture_output=True, check=False)
        own = self._hardware_address(1 + self._names.index(name))
        ip("link", "add", self.cable(name), "type", "veth", "peer", "name", "eth0", "address", own, "netns", str(pid))
        ip("link", "set", self.cable(name), "master", self.bridge, "up")
        _run(*inside, "link", "set", "lo", "up")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "addr", "add", f"{address}/24", "dev", "eth0")

    @contextmanager
    def silent(self, port: int) -> Iterator[None]:
        """No answer of a server of this machine, on the bridge, reaches any host; what hosts send reaches it."""
        rule = (*_RULE, self.address(), "ipproto", "tcp", "sport", str(port), "blackhole")
        ip("rule", "add", *rule)
        try:
            yield
        finally:
            ip("rule", "del", *rule)

    def remove(self) -> None:
        """Bridge, cables and rules go; the kernel takes its time with those of a host that has ended. Safe to call
        again."""
        if (prefix := self.prefix) is not None:
            rule = ["ip", "rule", "del", *_RULE, f"{prefix}.1"]
            while subprocess.run(rule, capture_output=True, check=False).returncode == 0:
                pass
        for name in self.left():
            subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)

    def left(self) -> list[str]:
        """What there is of this network: bridge and cables."""
        return [link["ifname"] for link in _ask("link") if link["ifname"].startswith(self.bridge)]


def ip(*arguments: str) -> None:
    """Run `ip`. Raises RuntimeError with what it says."""
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _ask(what: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-json", "-4", what], capture_output=True, text=True, check=True)
    links: list[dict[str, Any]] = [link for link in json.loads(done.stdout or "[]") if link]
    return links
