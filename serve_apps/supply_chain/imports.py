"""Which modules a Python source file imports, read with `ast`: nothing of it is ever run."""

from __future__ import annotations

import ast
import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SOURCE_BYTES = 2 << 20
"""Larger sources are not parsed."""


class Import(NamedTuple):
    """`name` is imported on `line`; `names` are what `from name import …` asks for. `deferred`: inside a function."""

    name: str
    names: tuple[str, ...]
    line: int
    deferred: bool


class ModuleSource(NamedTuple):
    """What a source file says: its lines, its imports in order, or why it could not be parsed."""

    lines: int
    imports: tuple[Import, ...]
    parse_error: str | None


def read_module(path: Path, package: str) -> ModuleSource:
    """Parse one file.

    Args:
        package: the package that relative imports start from ("" for none).
    """
    try:
        if path.stat().st_size > SOURCE_BYTES:
            return ModuleSource(0, (), f"larger than {SOURCE_BYTES:,} bytes")
        source = path.read_bytes()
    except OSError as error:
        return ModuleSource(0, (), f"unreadable: {error.strerror}")
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    if b"import" not in source:
        return ModuleSource(lines, (), _syntax_error(source))
    try:
        return ModuleSource(lines, tuple(_imports(_parse(source).body, package, False)), None)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return ModuleSource(lines, (), _named(error))


def read_modules(work: Sequence[tuple[str, str]]) -> list[ModuleSource]:
    """`read_module` of each (path, package), in order; collects no garbage meanwhile, which halves the time."""
    with _without_collecting(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [read_module(Path(path), package) for path, package in work]


@contextmanager
def _without_collecting() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(source: bytes) -> ast.Module:
    return ast.parse(source)


def _syntax_error(source: bytes) -> str | None:
    try:
        _parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _named(error)
    return None


def _named(error: BaseException) -> str:
    line = f" on line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}{line}: {message}"[:200]


def _imports(body: Sequence[ast.stmt], package: str, deferred: bool) -> Iterator[Import]:
    """Imports of the statements in order; expressions hold none and are not looked at."""
    waiting = [(statement, deferred) for statement in reversed(body)]
    while waiting:
        statement, inside = waiting.pop()
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield Import(alias.name, (), statement.lineno, inside)
        elif isinstance(statement, ast.ImportFrom):
            base = absolute(package, statement.level, statement.module or "")
            if base:
                yield Import(base, tuple(alias.name for alias in statement.names), statement.lineno, inside)
        else:
            function = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
            waiting += [(inner, inside or function) for inner in reversed(_inner(statement))]


def _inner(statement: ast.stmt) -> list[ast.stmt]:
    """Statements directly within a compound one."""
    found: list[ast.stmt] = []
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        for part in getattr(statement, name, ()):
            found += part.body if isinstance(part, (ast.ExceptHandler, ast.match_case)) else [part]
    return found


def absolute(package: str, level: int, module: str) -> str:
    """The absolute name of a `from … import`; empty where a relative one leads out of its package."""
    if level == 0:
        return module
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join(parts[: len(parts) - level + 1] + ([module] if module else []))


def resolve(found: Import, known: frozenset[str]) -> list[str]:
    """The modules that an import names: `from a import b` means `a.b` where that is a known module, else `a`."""
    if not found.names:
        return [found.name]
    inner = [f"{found.name}.{name}" for name in found.names]
    modules = [name for name in inner if name in known]
    return modules if len(modules) == len(inner) else [found.name, *modules]
