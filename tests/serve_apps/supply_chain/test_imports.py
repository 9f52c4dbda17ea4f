"""Imports read from source: every place where one may stand, and sources that are none."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from serve_apps.supply_chain.imports import SOURCE_BYTES, Import, absolute, read_module, read_modules, resolve

SOURCE = """
import os, a.b as ab
from . import sibling
from .. import up as u
from ...x import y
from .... import too_far
try:
    import fast
except ImportError:
    import slow
else:
    from other import *
finally:
    import last
if True:
    import one
elif False:
    import two
else:
    import three
with open("x") as f:
    import four
for _ in ():
    import five
match 1:
    case 1:
        import six
class C:
    import seven
    async def f(self):
        def g():
            import deep
def run():
    raise SystemExit("sources are never run")
raise SystemExit("sources are never run")
"""


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(textwrap.dedent(SOURCE))
    read = read_module(path, "p.q.r")
    assert read.parse_error is None
    assert [(found.name, found.names, found.deferred) for found in read.imports] == [
        ("os", (), False), ("a.b", (), False), ("p.q.r", ("sibling",), False), ("p.q", ("up",), False),
        ("p.x", ("y",), False), ("fast", (), False), ("slow", (), False), ("other", ("*",), False),
        ("last", (), False), ("one", (), False), ("two", (), False), ("three", (), False), ("four", (), False),
        ("five", (), False), ("six", (), False), ("seven", (), False), ("deep", (), True),
    ]  # fmt: skip
    assert read.imports[0].line == 2
    assert read.lines == SOURCE.count("\n")


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"import (", "SyntaxError on line 1"), (b"import x\n\x00", "null bytes"), (b"x = (", "SyntaxError"),
     (b"# coding: nonsense\nimport x", "encoding"), (b"import x\n" + b"(" * 10_000 + b")" * 10_000, ""),
     (b"import x\n#" + b"y" * SOURCE_BYTES, "larger than 2,097,152 bytes"), (b"import x\n'\xff'", "")],
)  # fmt: skip
def test_what_cannot_be_parsed_is_said(tmp_path: Path, data: bytes, error: str) -> None:
    path = tmp_path / "m.py"
    path.write_bytes(data)
    (read,) = read_modules([(str(path), "")])
    assert read.imports == ()
    assert read.parse_error
    assert error in read.parse_error
    assert read_module(tmp_path / "missing.py", "").parse_error == "unreadable: No such file or directory"


def test_relative_names() -> None:
    assert absolute("", 0, "x") == "x"
    assert absolute("a.b", 1, "") == "a.b"
    assert absolute("a.b", 2, "c") == "a.c"
    assert absolute("a.b", 3, "c") == ""
    assert absolute("", 1, "c") == ""


def test_from_imports_mean_modules_where_there_are_any() -> None:
    known = frozenset({"a", "a.b"})
    assert resolve(Import("a", ("b",), 1, False), known) == ["a.b"]
    assert resolve(Import("a", ("b", "f"), 1, False), known) == ["a", "a.b"]
    assert resolve(Import("a", ("f",), 1, False), known) == ["a"]
    assert resolve(Import("a.z", (), 1, False), known) == ["a.z"]
