"""Metadata as values: people, licences, requirements, recorded files."""

from __future__ import annotations

from email.message import Message
from email.parser import HeaderParser

import pytest

from serve_apps.supply_chain.metadata import licences, normalised, people, recorded_files, requirements


def about(text: str) -> Message:
    return HeaderParser().parsestr(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Author: Ann Lee\nAuthor-email: Ann@X.org", [("ann@x.org", "Ann Lee")]),
        ('Author-email: Ann Lee <ann@x.org>, "Bo, Jr" <bo@x.org>, ann@x.org',
         [("ann@x.org", "Ann Lee"), ("bo@x.org", "Bo, Jr")]),
        ("Author: Ann  Lee, Bo Day", [("ann lee", "Ann Lee"), ("bo day", "Bo Day")]),
        ("Author: Acme Tools, Inc.", [("acme tools, inc.", "Acme Tools, Inc.")]),
        ("Author: UNKNOWN", []),
        ("Author-email: not an address", [("not an address", "not an address")]),
        ("Summary: x", []),
    ],
)  # fmt: skip
def test_people(text: str, found: list[tuple[str, str]]) -> None:
    assert [(who.identity, who.name) for who in people(about(text), "Author")] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("License-Expression: MIT AND (Apache-2.0 OR BSD-3-Clause)", ["MIT", "Apache-2.0", "BSD-3-Clause"]),
        ("Classifier: License :: OSI Approved :: MIT License\nLicense: whatever", ["MIT"]),
        ("License: Apache License 2.0", ["Apache-2.0"]),
        ("License: Permission is hereby granted, free of charge, to any person obtaining a copy", ["other"]),
        ("License: UNKNOWN", []),
        ("Classifier: License :: OSI Approved\nLicense: ISC", ["ISC"]),
    ],
)  # fmt: skip
def test_licences(text: str, found: list[str]) -> None:
    assert licences(about(text))[0] == found


def test_requirements() -> None:
    lines = [
        "Foo.Bar[b,a] (>=1.0,<2) ; extra == 'x' and python_version < '3.9'",
        "plain",
        "url @ https://example.org/p.whl ; sys_platform == 'linux'",
        "not a requirement !",
        "zope.interface>=5",
    ]
    found = list(requirements(lines))
    assert [(one.name, one.extras, one.specifier, one.extra) for one in found] == [
        ("foo-bar", ("a", "b"), "<2,>=1.0", "x"),
        ("plain", (), "", ""),
        ("url", (), "@ https://example.org/p.whl", ""),
        ("zope-interface", (), ">=5", ""),
    ]
    assert found[0].marker == "extra == 'x' and python_version < '3.9'"
    assert normalised("A__b.-C") == "a-b-c"


def test_recorded_files() -> None:
    text = (
        "b.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
        '"a, b.txt",md5=xx,7\n'
        "__pycache__/b.cpython-311.pyc,,\n"
        "c.py,sha256=%%%,x\n"
        "b.py,,\n"
    )
    found = recorded_files(text)
    assert [(file.path, file.size) for file in found] == [("a, b.txt", 7), ("b.py", 0), ("c.py", -1)]
    assert found[1].sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert found[0].sha256 == ""
