"""Tenant `python`: each installed distribution is a case, read from its metadata and sources. Nothing is imported.

    package ─has_version→ version ─contains→ file          package ─defines→ module ─imports→ module
    package ─authored_by, maintained_by→ person            package ─licensed_under→ licence
    package ─depends_on→ package

Types and ids are the same in every case, so one author, licence, dependency or imported module is one thing seen by
several cases. Modules of other distributions and of the standard library appear in the case that imports them, with
`origin` distribution, stdlib or absent. The same installation gives the same events in the same order.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.message import Message
from email.parser import HeaderParser
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cluster.errors import Unavailable
from serve_apps.supply_chain.imports import ModuleSource, read_modules, resolve
from serve_apps.supply_chain.metadata import (
    RecordedFile,
    licences,
    normalised,
    one_line,
    people,
    recorded_files,
    requirements,
)
from serve_apps.supply_chain.records import CaseFacts, End, Event, numbered

SOURCE = "python-packages"
TENANT = "python"
_CHUNK = 64
_METADATA_BYTES = 64 << 20
_NATIVE = (".so", ".pyd")
Progress = Callable[[int, int], None]
"""Called with (distributions done, all distributions)."""


class Module(NamedTuple):
    """A module that a distribution defines: dotted name, path below the installation, and where `from .` starts."""

    name: str
    path: str
    package: str
    native: bool


class Installed(NamedTuple):
    """One distribution as installed."""

    name: str
    metadata: Message
    version: str
    requires: tuple[str, ...]
    files: tuple[RecordedFile, ...]
    modules: tuple[Module, ...]


def python_events(site_packages: Path, workers: int = 2, progress: Progress | None = None) -> Iterator[Event]:
    """Events of every distribution in a folder, by name.

    Args:
        site_packages: the folder with the `.dist-info` folders.
        workers: processes that parse sources; 1: this process alone. The events are the same.
        progress: told after each distribution.

    Raises:
        OSError: the folder cannot be read.
    """
    found = installed(site_packages)
    owners = {module.name: one.name for one in found for module in one.modules}
    known = frozenset(owners)
    sources = _sources(site_packages, found, workers)
    return numbered(_events(found, sources, owners, known, progress))


def _events(
    found: Sequence[Installed],
    sources: Iterator[ModuleSource],
    owners: dict[str, str],
    known: frozenset[str],
    progress: Progress | None,
) -> Iterator[Event]:
    for done, one in enumerate(found, 1):
        facts = CaseFacts(TENANT, one.name, SOURCE)
        package = _package(facts, one)
        read = [(module, next(sources) if not module.native else None) for module in one.modules]
        _modules(facts, package, read, owners, known)
        yield from facts.events()
        if progress is not None:
            progress(done, len(found))


def installed(site_packages: Path) -> list[Installed]:
    """The distributions in a folder, sorted by normalised name; of two with one name the first folder counts."""
    found: dict[str, Installed] = {}
    for folder in sorted(site_packages.iterdir()):
        if folder.suffix in (".dist-info", ".egg-info") and folder.is_dir():
            one = _installed(folder)
            if one is not None:
                found.setdefault(one.name, one)
    return [found[name] for name in sorted(found)]


def _installed(folder: Path) -> Installed | None:
    about = HeaderParser().parsestr(_text(folder / "METADATA") or _text(folder / "PKG-INFO"))
    name = normalised(str(about.get("Name") or ""))
    if not name:
        return None
    files = recorded_files(_text(folder / "RECORD"))
    modules = {module.name: module for file in reversed(files) if (module := module_of(file.path)) is not None}
    version = one_line(str(about.get("Version") or ""), 100)
    requires = tuple(str(line) for line in about.get_all("Requires-Dist", []))
    return Installed(name, about, version, requires, tuple(files), tuple(modules[key] for key in sorted(modules)))


def _text(path: Path) -> str:
    """A metadata file; empty where there is none, or it is absurdly large."""
    try:
        return path.read_text("utf-8", "replace") if path.stat().st_size <= _METADATA_BYTES else ""
    except OSError:
        return ""


def module_of(path: str) -> Module | None:
    """The module that a recorded file is, if it is one that can be imported from the installation's folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        return None
    native = parts.suffix in _NATIVE
    if parts.suffix != ".py" and not native:
        return None
    names = [*parts.parts[:-1], parts.name.split(".")[0]]
    package = names[:-1]
    if names[-1] == "__init__":
        names = package
    if not names or not all(name.isidentifier() for name in names):
        return None
    return Module(".".join(names), path, ".".join(package), native)


def _sources(site_packages: Path, found: Sequence[Installed], workers: int) -> Iterator[ModuleSource]:
    """What each Python module says, in the order of the distributions and their modules."""
    modules = (module for one in found for module in one.modules if not module.native)
    work = [(str(site_packages / module.path), module.package) for module in modules]
    chunks = [work[at : at + _CHUNK] for at in range(0, len(work), _CHUNK)]
    if workers < 2:
        for chunk in chunks:
            yield from read_modules(chunk)
        return
    yield from _read_beside(chunks, workers)


_Chunk = list[tuple[str, str]]


def _read_beside(chunks: Sequence[_Chunk], workers: int) -> Iterator[ModuleSource]:
    """`read_modules` of each chunk, in order, by processes that take turns, each with a pipe of its own.

    An executor's own thread and queues may stand still, or tell of their inside, where its processes are killed.
    """
    context, pipes, processes = get_context("spawn"), [], []
    resource_tracker.ensure_running()  # else the first process starts it, which lets interrupts through again
    try:
        with _interrupts_held():
            for number in range(workers):
                answers, told = context.Pipe(duplex=False)
                process = context.Process(target=_tell, args=(chunks[number::workers], told), daemon=True)
                process.start()
                told.close()
                pipes.append(answers)
                processes.append(process)
        for number in range(len(chunks)):
            yield from pipes[number % workers].recv()
    except EOFError as error:
        raise Unavailable("a process that reads Python files has ended before its time; try again", 1.0) from error
    finally:
        for process in processes:
            process.kill()


def _tell(chunks: Sequence[_Chunk], told: Connection) -> None:
    for chunk in chunks:
        told.send(read_modules(chunk))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started here never see Ctrl-C, which a terminal sends to all; this one sees it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _package(facts: CaseFacts, one: Installed) -> End:
    about = one.metadata
    package = facts.entity(
        "package",
        one.name,
        name=one_line(str(about.get("Name")), 200),
        summary=one_line(str(about.get("Summary") or "")),
        requires_python=one_line(str(about.get("Requires-Python") or ""), 100),
        home_page=one_line(str(about.get("Home-page") or "")),
        installed=True,
    )
    version = facts.entity("version", f"{one.name}=={one.version}", package=one.name, version=one.version)
    facts.relationship("has_version", package, version)
    for file in one.files:
        size = file.size if file.size >= 0 else None
        end = facts.entity("file", file.path, path=file.path, sha256=file.sha256, bytes=size)
        facts.relationship("contains", version, end)
    _people(facts, package, one)
    named, expression = licences(about)
    for licence in named:
        end = facts.entity("licence", licence, name=licence)
        facts.relationship("licensed_under", package, end, expression=expression)
    _dependencies(facts, package, one)
    return package


def _people(facts: CaseFacts, package: End, one: Installed) -> None:
    for role, kind in (("Author", "authored_by"), ("Maintainer", "maintained_by")):
        for who in people(one.metadata, role):
            end = facts.entity("person", who.identity, name=who.name, email=who.email)
            facts.relationship(kind, package, end)


def _dependencies(facts: CaseFacts, package: End, one: Installed) -> None:
    for needed in requirements(one.requires):
        end = facts.entity("package", needed.name)
        facts.relationship(
            "depends_on",
            package,
            end,
            mark=needed.text,
            specifier=needed.specifier,
            extras=list(needed.extras),
            marker=needed.marker,
            extra=needed.extra,
            optional=bool(needed.extra),
        )


def _modules(
    facts: CaseFacts,
    package: End,
    read: Sequence[tuple[Module, ModuleSource | None]],
    owners: dict[str, str],
    known: frozenset[str],
) -> None:
    for module, source in read:
        end = facts.entity(
            "module",
            module.name,
            origin="distribution",
            distribution=owners[module.name],
            path=module.path,
            native=module.native or None,
            lines=source.lines if source else None,
            parse_error=source.parse_error if source else None,
        )
        facts.relationship("defines", package, end)
    for module, source in read:
        for found in source.imports if source else ():
            for name in resolve(found, known):
                if name != module.name:
                    end = facts.entity("module", name, **_origin(name, owners))
                    start = ("module", module.name)
                    facts.relationship("imports", start, end, line=found.line, deferred=found.deferred)


def _origin(name: str, owners: dict[str, str]) -> dict[str, str]:
    if owner := owners.get(name):
        return {"origin": "distribution", "distribution": owner}
    return {"origin": "stdlib" if name.split(".")[0] in sys.stdlib_module_names else "absent"}
