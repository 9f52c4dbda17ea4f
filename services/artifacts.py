"""Pinned Maven artifacts, fetched with Maven's own client and checked against a lock of this project.

A lock, `locks/<name>.txt`, has a line `<sha256>  <file>` for every file. What Maven resolves has to be these files,
no more and no fewer. `python -m services lock NAME` writes it anew.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from services.machine import program
from services.spec import NotInstallable

LOCKS = Path(__file__).parent / "locks"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>intelgraph</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{dependencies}</dependencies></project>
"""
_FETCH_S = 900


def fetch_jars(name: str, coordinates: Sequence[str], folder: Path, locked: bool = True) -> None:
    """The jars of `group:artifact:version`s and of all that they need at run time, in `folder`.

    Safe to call again: a folder that holds what the lock says is left as it is.

    Raises:
        NotInstallable: Maven is missing, cannot fetch them, or gave other files than the lock names.
    """
    if locked and _is_as_locked(name, folder):
        return
    with _fresh(folder) as aside:
        (aside / "pom.xml").write_text(_POM.format(name=name, dependencies="".join(map(_dependency, coordinates))))
        _maven(aside, "dependency:copy-dependencies", f"-DoutputDirectory={aside / 'out'}", "-DincludeScope=runtime")
        _take(name, aside / "out", folder, locked)


def fetch_archive(name: str, coordinate: str, folder: Path, locked: bool = True) -> None:
    """The archive `group:artifact:version:tar.gz:classifier`, and its content beside it. As `fetch_jars`."""
    if not (locked and _is_as_locked(name, folder / "archive")):
        with _fresh(folder) as aside:
            (aside / "pom.xml").write_text(_POM.format(name=name, dependencies=""))
            _maven(aside, "dependency:copy", f"-Dartifact={coordinate}", f"-DoutputDirectory={aside / 'out'}")
            _take(name, aside / "out", folder / "archive", locked)
    if not (folder / "content").is_dir():
        (archive,) = (folder / "archive").glob("*.tar.gz")
        with _fresh(folder) as aside, tarfile.open(archive) as tar:
            tar.extractall(aside / "content", filter="data")
            (aside / "content").rename(folder / "content")


def write_lock(name: str, folder: Path) -> Path:
    """Lock the files of a folder."""
    LOCKS.mkdir(exist_ok=True)
    lock = LOCKS / f"{name}.txt"
    lock.write_text("".join(f"{digest}  {file}\n" for file, digest in sorted(_digests(folder).items())))
    return lock


def _dependency(coordinate: str) -> str:
    group, artifact, version = map(escape, coordinate.split(":"))
    inner = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
    return f"<dependency>{inner}</dependency>"


class _fresh(tempfile.TemporaryDirectory[str]):  # noqa: N801 - used as a function
    """A folder beside `folder`, gone afterwards."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(prefix=".fetch-", dir=folder.parent)

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def _maven(folder: Path, *arguments: str) -> None:
    command = [program("mvn", "maven"), "-q", "-B", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_FETCH_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstallable(f"Maven has not finished in {_FETCH_S} s; look at the network and try again") from error
    if done.returncode != 0:
        raise NotInstallable(f"Maven failed: {(done.stdout + done.stderr).strip()[-800:]}")


def _take(name: str, got: Path, folder: Path, locked: bool) -> None:
    if locked:
        wanted, found = _locked(name), _digests(got)
        wrong = sorted(file for file in {*wanted, *found} if wanted.get(file) != found.get(file))
        if wrong:
            raise NotInstallable(
                f"{name}: Maven gave other files than services/locks/{name}.txt names: {', '.join(wrong[:5])}"
            )
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    got.rename(folder)


def _locked(name: str) -> Mapping[str, str]:
    lock = LOCKS / f"{name}.txt"
    if not lock.is_file():
        raise NotInstallable(f"{lock.name} is missing from services/locks; `python -m services lock {name}` writes it")
    pairs = (line.split("  ", 1) for line in lock.read_text().splitlines() if line)
    return {file: digest for digest, file in pairs}


def _is_as_locked(name: str, folder: Path) -> bool:
    return folder.is_dir() and _digests(folder) == _locked(name)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: _sha256(path) for path in folder.iterdir() if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
