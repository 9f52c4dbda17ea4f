"""What the metadata of Python distributions says about people, licences and requirements, as plain values."""

from __future__ import annotations

import base64
import binascii
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from email.utils import getaddresses
from typing import NamedTuple

_REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?\s*(?:@\s*(\S+)|\(?((?:[<>=!~][^;()]*)?)\)?)\s*(?:;\s*(.*))?",
    re.DOTALL,
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_FULL_NAME = re.compile(r"[^\W\d_][\w.'’-]*(?: [^\W\d_][\w.'’-]*){1,3}(?<!Inc)(?<!Inc\.)(?<!Ltd)(?<!LLC)")
_SPACES = re.compile(r"\s+")
_SPDX_SPLIT = re.compile(r"\s+(?:AND|OR)\s+|[()]", re.IGNORECASE)
_LICENCE_CHARS = 60
_LICENCE_NAMES = {
    "apache": "Apache-2.0", "apache 2": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0", "apache software license": "Apache-2.0", "asl 2": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0", "apache license": "Apache-2.0", "apache-2.0 license": "Apache-2.0",
    "mit": "MIT", "mit license": "MIT", "the mit license": "MIT", "mit licence": "MIT", "the mit license (mit)": "MIT",
    "bsd": "BSD", "bsd license": "BSD", "bsd 3-clause": "BSD-3-Clause", "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause", "bsd-3-clause license": "BSD-3-Clause", "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause", "modified bsd license": "BSD-3-Clause", "bsd-2-clause license": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause", "bsd 2-clause license": "BSD-2-Clause", "psf": "PSF-2.0",
    "python software foundation license": "PSF-2.0", "psf-2.0 license": "PSF-2.0",
    "isc license (iscl)": "ISC", "isc license": "ISC", "the unlicense (unlicense)": "Unlicense",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0", "mpl 2.0": "MPL-2.0", "zlib/libpng license": "Zlib",
}  # fmt: skip


class Person(NamedTuple):
    """Someone named in metadata; `identity` is the lower-case address, or the name without case where there is none."""

    identity: str
    name: str
    email: str


class Requirement(NamedTuple):
    """One `Requires-Dist`: the distribution's normalised name and the conditions as written."""

    name: str
    extras: tuple[str, ...]
    specifier: str
    marker: str
    extra: str
    text: str


class RecordedFile(NamedTuple):
    """One line of RECORD: path from the installation's folder, SHA-256 ("" unknown), bytes (-1 unknown)."""

    path: str
    sha256: str
    size: int


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def one_line(text: str, limit: int = 500) -> str:
    """Text with its white space folded, cut."""
    return _SPACES.sub(" ", text).strip()[:limit]


def people(metadata: Message, role: str) -> list[Person]:
    """Who `Author` / `Author-email` (or `Maintainer`…) name, in order, each once."""
    names = [one_line(str(value), 200) for value in metadata.get_all(role, [])]
    written = [str(value) for value in metadata.get_all(f"{role}-email", [])]
    pairs = getaddresses([text for text in written if "@" in text])
    addresses = [(one_line(name, 200), mail.strip()) for name, mail in pairs if name or mail]
    if len(addresses) == len(names) == 1 and not addresses[0][0]:
        addresses, names = [(names[0], addresses[0][1])], []
    elif any(name for name, _ in addresses):
        names = []
    if not addresses and not names:
        names = [one_line(text, 200) for text in written]
    found = [person(name, mail) for name, mail in addresses]
    found += [person(one, "") for name in names for one in _names(name)]
    return _each_once(entry for entry in found if entry.identity and entry.identity != "unknown")


def _names(text: str) -> list[str]:
    """`A B, C D` is two people where every part looks like a person's name, else one."""
    parts = [part.strip() for part in text.split(",")]
    return parts if all(_FULL_NAME.fullmatch(part) for part in parts) else [text]


def person(name: str, mail: str) -> Person:
    """A person by address, or by name; what is no address counts as a name."""
    if "@" not in mail:
        name, mail = name or mail, ""
    mail = mail.strip().lower()
    return Person(mail[:320] or name.casefold()[:320], name, mail)


def _each_once(found: Iterable[Person]) -> list[Person]:
    first: dict[str, Person] = {}
    for entry in found:
        first.setdefault(entry.identity, entry)
    return list(first.values())


def licences(metadata: Message) -> tuple[list[str], str]:
    """(licences by SPDX name where it is known, the expression or text they come from)."""
    expression = one_line(str(metadata.get("License-Expression") or ""), 200)
    if expression:
        parts = [part.strip() for part in _SPDX_SPLIT.split(expression)]
        return list(dict.fromkeys(part for part in parts if part)), expression
    labels = [str(value) for value in metadata.get_all("Classifier", []) if str(value).startswith("License ::")]
    named = [label.split("::")[-1].strip() for label in labels]
    named = [name for name in named if name not in ("OSI Approved", "License")]
    text = str(metadata.get("License") or "").strip()
    if not named and text and text != "UNKNOWN":
        first = one_line(text.splitlines()[0], 200)
        named = [first if len(first) <= _LICENCE_CHARS else "other"]
    return list(dict.fromkeys(_LICENCE_NAMES.get(name.lower(), name) for name in named)), ""


def requirements(lines: Iterable[str]) -> Iterator[Requirement]:
    """The requirements that can be read (PEP 508); others are left out."""
    for line in lines:
        match = _REQUIREMENT.fullmatch(line)
        if match is None:
            continue
        name, extras, url, specifier, marker = match.groups(default="")
        marker = one_line(marker)
        extra = _EXTRA.search(marker)
        names = tuple(sorted(part.strip() for part in extras.split(",") if part.strip()))
        wanted = f"@ {url}" if url else ",".join(sorted(part.strip() for part in specifier.split(",") if part.strip()))
        yield Requirement(normalised(name), names, wanted, marker, extra[1] if extra else "", one_line(line))


def recorded_files(record: str) -> list[RecordedFile]:
    """RECORD's files, sorted by path, each once; compiled bytecode is left out: it is derived and has no hash."""
    found: dict[str, RecordedFile] = {}
    try:
        for row in csv.reader(record.splitlines()):
            if len(row) >= 1 and row[0] and not row[0].endswith(".pyc"):
                found.setdefault(row[0], _recorded(row))
    except csv.Error:
        pass  # the lines before the broken one still count
    return [found[path] for path in sorted(found)]


def _recorded(row: Sequence[str]) -> RecordedFile:
    algorithm, _, digest = row[1].partition("=") if len(row) > 1 else ("", "", "")
    size = row[2] if len(row) > 2 else ""
    try:
        sha256 = base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex() if algorithm == "sha256" else ""
    except (binascii.Error, ValueError):
        sha256 = ""
    return RecordedFile(row[0], sha256, int(size) if size.isascii() and size.isdigit() and len(size) < 19 else -1)
