"""Starting, finding and stopping services, on one that is a few lines of Python; locks; certificates."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cluster.embedded import process
from services import artifacts, certificates, machine
from services.catalogue import CATALOGUE, LOCKED
from services.launching import listens
from services.ports import port_for
from services.runner import Services
from services.spec import Launch, NotInstallable, Running, Service

WEB = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def web(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
    port = port_for(own, 18_100)
    command = [sys.executable, "-I", "-c", WEB, str(port)]
    return Launch(command, f"http://127.0.0.1:{port}", lambda: listens(port), {"password": "hush"})


def fails(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
    return Launch([sys.executable, "-I", "-c", "print('no disk'); raise SystemExit(3)"], "", lambda: False)


def hangs(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
    command = [sys.executable, "-I", "-c", "import time; time.sleep(600)"]
    return Launch(command, "", lambda: False, start_s=0.5)


def slow(own: Path, _: Path, __: Mapping[str, Running]) -> Launch:
    return Launch([sys.executable, "-I", "-c", "import time; time.sleep(600)"], "", lambda: False)


def nothing(_: Path) -> None:
    return


def impossible(_: Path) -> None:
    raise NotInstallable("no such thing; install it")


TRIALS = {
    "web": Service("web", "", nothing, web),
    "beside": Service("beside", "", nothing, web, needs=("web",)),
    "fails": Service("fails", "", nothing, fails),
    "hangs": Service("hangs", "", nothing, hangs),
    "slow": Service("slow", "", nothing, slow),
    "impossible": Service("impossible", "", impossible, web),
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path / "services", TRIALS)
    yield services
    services.stop_all()


def test_what_is_needed_starts_first_and_ends_last(here: Services) -> None:
    beside = here.start("beside")
    web = here.find("web")
    assert web is not None
    assert beside.address != web.address
    assert here.start("beside") == beside  # it is left as it is
    assert Path(f"/proc/{beside.pid}/cwd").readlink() == here.folder / "beside"
    assert here.stop_all() == ["beside", "web"]
    assert here.find("web") is None
    assert not Path(f"/proc/{beside.pid}").exists()
    assert here.stop_all() == []


def test_a_service_keeps_its_port_and_a_killed_one_is_not_found(here: Services) -> None:
    first = here.start("web")
    here.kill("web")
    assert here.find("web") is None
    again = here.start("web")
    assert (again.address, again.pid == first.pid) == (first.address, False)


def test_data_goes_only_when_asked(here: Services) -> None:
    here.start("web")
    (here.folder / "web" / "data").write_text("x")
    here.stop("web")
    assert (here.folder / "web" / "data").exists()
    here.stop("web", keep_data=False)
    assert not (here.folder / "web").exists()


@pytest.mark.parametrize(("name", "message"), [("fails", "no disk"), ("hangs", "does not answer")])
def test_what_does_not_come_up_is_said_with_its_last_words(here: Services, name: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        here.start(name)
    assert here.find(name) is None


def test_a_service_whose_starter_is_killed_is_found_and_stopped(tmp_path: Path) -> None:
    """Before it answers: the starter waits for that when it dies."""
    script = (
        "from pathlib import Path; from services.runner import Services; from tests.services.test_runner import TRIALS;"
        f"Services(Path({str(tmp_path)!r}), {{'hangs': TRIALS['slow']}}).start('hangs')"
    )
    here = Services(tmp_path, {"hangs": TRIALS["slow"]})
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as starter:
        end = time.monotonic() + 60
        while (running := here.find("hangs")) is None and time.monotonic() < end:
            time.sleep(0.05)
        starter.kill()
    assert running is not None
    assert here.stop_all() == ["hangs"]
    assert process.start_ticks(running.pid) != running.start_ticks


def test_what_cannot_be_installed_says_what_to_do(here: Services) -> None:
    with pytest.raises(NotInstallable, match="install it"):
        here.start("impossible")
    assert not (here.folder / "impossible" / "service.json").exists()


def test_services_come_after_what_they_need() -> None:
    seen: set[str] = set()
    for name, service in CATALOGUE.items():
        assert set(service.needs) <= seen
        seen.add(name)


def test_every_lock_is_there_and_names_digests() -> None:
    assert {path.stem for path in artifacts.LOCKS.glob("*.txt")} == set(LOCKED)
    for name in LOCKED:
        locked = artifacts._locked(name)
        assert locked
        assert all(len(digest) == 64 for digest in locked.values())


def test_files_that_the_lock_does_not_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "LOCKS", tmp_path / "locks")
    for folder in ("got", "evil"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jar").write_text("what was locked")
    artifacts.write_lock("trial", tmp_path / "got")
    (tmp_path / "evil" / "a.jar").write_text("something else")
    with pytest.raises(NotInstallable, match=r"a\.jar"):
        artifacts._take("trial", tmp_path / "evil", tmp_path / "out", locked=True)
    assert not (tmp_path / "out").exists()
    artifacts._take("trial", tmp_path / "got", tmp_path / "out", locked=True)
    assert artifacts._is_as_locked("trial", tmp_path / "out")
    (tmp_path / "out" / "b.jar").write_text("one more")
    assert not artifacts._is_as_locked("trial", tmp_path / "out")


def test_a_missing_program_or_java_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    monkeypatch.setattr(machine, "_candidates", list)
    machine.java.cache_clear()
    with pytest.raises(NotInstallable, match="JAVA_HOME"):
        machine.java()
    with pytest.raises(NotInstallable, match="apt install maven"):
        machine.program("mvn", "maven")


def test_a_certificate_is_good_for_loopback_by_its_own_authority_only(tmp_path: Path) -> None:
    authority = certificates.make(tmp_path, "server", key="key", certificate="crt")
    assert authority == certificates.make(tmp_path, "server", key="key", certificate="crt")
    chain = [str(tmp_path / "server" / name) for name in ("crt", "key")]
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*chain)
    other = certificates.make(tmp_path / "other", "server", key="key", certificate="crt")
    for trusted, good in ((authority, True), (other, False)):
        command = ["openssl", "verify", "-CAfile", str(trusted), "-verify_ip", "127.0.0.1", chain[0]]
        done = subprocess.run(command, capture_output=True, check=False, env={"PATH": os.environ["PATH"]})
        assert (done.returncode == 0) is good


def test_the_command_line_lists_what_there_is() -> None:
    done = subprocess.run([sys.executable, "-m", "services", "--help"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in CATALOGUE)
    wrong = subprocess.run(
        [sys.executable, "-m", "services", "up", "kafak"], capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, "choose from" in wrong.stderr) == (2, True)
