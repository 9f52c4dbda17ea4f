"""One host: namespaces of its own, in which sshd is the first process. For `services.runner`, it is a service."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cluster.embedded.passwords import write_private
from services.runner import FILE
from services.spec import Launch, Running, Service

HOME = "/home/ray"
CHECKOUT = f"{HOME}/intelgraph"
OWN = f"{HOME}/.intelgraph"
STATE_DIR, ENVIRONMENT = f"{OWN}/state", f"{OWN}/venv"
_STAGE = Path("/mnt")
_COVERED = ("/tmp", "/home")  # noqa: S108 - the host's own lie over these
_NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
_SSHD = """\
ListenAddress {address}
HostKey {etc}/host_key
AuthorizedKeysFile {etc}/authorized_keys
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
MaxStartups 64
"""


@dataclass(frozen=True)
class Place:
    """Where a host's files come from.

    Args:
        checkout: whose `.venv` the host uses.
        shared: the state directory that all hosts see.
        programs: the folder with sshd and rsync.
        folder: of all hosts.
    """

    checkout: Path
    shared: Path
    programs: Path
    folder: Path

    def kept(self) -> list[Path]:
        """What has to be seen under its own path in a host, too."""
        return [self.checkout, Path(sys.base_prefix), self.programs.parent, self.folder]


def script(own: Path, name: str, address: str, place: Place, *, node: bool = True) -> str:
    """What a host's first process does: it lays its own folders over this machine's, then becomes sshd.

    Args:
        node: it is a host of the cluster, with environment and state directory.
    """
    lines = ["set -eu", f"hostname {name}", _line("mount", "--bind", own, _STAGE)]  # stays in sight
    for kept in place.kept():
        for covered in _COVERED:
            if kept.is_relative_to(covered):
                target = _STAGE / covered[1:] / kept.relative_to(covered)
                lines += [_line("mkdir", "-p", target), _line("mount", "--bind", kept, target)]
    if node:
        environment, state = _STAGE / ENVIRONMENT[1:], _STAGE / STATE_DIR[1:]
        lines += [
            _line("mount", "--bind", place.checkout / ".venv", environment),
            _line("mount", "-o", "remount,bind,ro", environment),
            _line("mount", "--bind", place.shared, state),
        ]
    lines += [
        *(_line("mount", "--bind", own / "etc" / file, f"/etc/{file}") for file in ("passwd", "shadow", "hosts")),
        _line("mount", "--bind", place.programs, "/usr/local/sbin"),
        *(_line("mount", "--rbind", _STAGE / covered[1:], covered) for covered in _COVERED),
        "mount -t tmpfs tmpfs /run",
        "mount -t tmpfs tmpfs /dev/shm",
        "mkdir /run/sshd",
        f"until ip addr show eth0 2>/dev/null | grep -qF {address}/; do sleep 0.05; done",
        f"exec /usr/local/sbin/sshd -D -e -f {shlex.quote(str(own / 'etc' / 'sshd_config'))}",
    ]
    return "\n".join([*lines, ""])


def _line(*words: object) -> str:
    return shlex.join(map(str, words))


def host(name: str, addresses: Mapping[str, str], place: Place, *, node: bool = True) -> Service:
    """A host as a service: started, found and ended like one. It answers when it can be plugged in."""

    def launch(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
        _prepare(own, addresses[name], addresses, place)
        write_private(own / "host.sh", script(own, name, addresses[name], place, node=node))
        return Launch(
            command=["unshare", *_NAMESPACES, "sh", str(own / "host.sh")],
            address=addresses[name],
            answers=lambda: first_process(own) is not None,
            stop_signal=signal.SIGKILL,
        )

    return Service(name, "a host", lambda _: None, launch)


def _prepare(own: Path, address: str, addresses: Mapping[str, str], place: Place) -> None:
    etc, home = own / "etc", own / HOME[1:]
    for folder in (etc, own / "tmp", home / ".ssh", *(own / path[1:] for path in (CHECKOUT, STATE_DIR, ENVIRONMENT))):
        folder.mkdir(parents=True, exist_ok=True)
    (home / ".bashrc").touch()  # Ray reads it before each command
    (own / "tmp").chmod(0o1777)
    for file, text in accounts(Path("/etc/passwd").read_text()).items():
        (etc / file).write_text(text)
    names = "".join(f"{address} {name}\n" for name, address in addresses.items())
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
    write_private(etc / "sshd_config", _SSHD.format(address=address, etc=etc))
    for file in ("host_key", "authorized_keys"):
        write_private(etc / file, (place.folder / "keys" / file).read_text())


def accounts(passwd: str) -> dict[str, str]:
    """`passwd` and `shadow` of a host: root's home is the host's own, and sshd has its user."""
    kept = [line for line in passwd.splitlines() if line.split(":")[0] not in ("root", "sshd")]
    own = [f"root:x:0:0:root:{HOME}:/bin/bash", "sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin"]
    shadow = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in ("root", "sshd"))
    return {"passwd": "\n".join([*own, *kept, ""]), "shadow": shadow}


def first_process(own: Path) -> int | None:
    """The pid, outside, of the host's first process; None while it is not there."""
    try:
        unshared = msgspec.json.decode((own / FILE).read_bytes(), type=Running).pid
        (child,) = Path(f"/proc/{unshared}/task/{unshared}/children").read_text().split()
        separate = Path(f"/proc/{child}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    except (OSError, ValueError):
        return None
    return int(child) if separate else None


def inside(pid: int, environment_bin: Path, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in a host.

    Args:
        environment_bin: where `ray` and `python` are.
    """
    environment = {
        "HOME": HOME, "USER": "root", "LANG": "C.UTF-8",
        "PATH": f"{environment_bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }  # fmt: skip
    enter = ["nsenter", "--target", str(pid), "--net", "--mount", "--pid", "--uts", "--ipc", f"--wd=/proc/{pid}/root"]
    return [*enter, "env", "-i", *(f"{name}={value}" for name, value in environment.items()), *command]
