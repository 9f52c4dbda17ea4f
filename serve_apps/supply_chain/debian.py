"""Tenant `debian`: each source package that has binaries installed is a case, read from dpkg's own list.

A source package is the natural case: its binaries are built, versioned and maintained together.

    source ─builds→ package ─has_version→ version          package ─in_section→ section
    package ─depends_on→ package                           source ─maintained_by→ person

`depends_on` covers Depends, Pre-Depends and Recommends (`relation`); alternatives (`a | b`) are one relationship each,
with `choice` from 1 and all `alternatives`. Packages that are only named, virtual ones too, are entities of the case
that names them. The same list gives the same events in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.utils import parseaddr
from pathlib import Path

from serve_apps.supply_chain.metadata import one_line, person
from serve_apps.supply_chain.records import CaseFacts, End, Event, numbered

SOURCE = "dpkg"
TENANT = "debian"
STATUS = "var/lib/dpkg/status"
_STATUS_BYTES = 256 << 20
_RELATIONS = {"Pre-Depends": "pre-depends", "Depends": "depends", "Recommends": "recommends"}
_DEPENDENCY = re.compile(r"([a-z0-9][a-z0-9+.-]*)(?::([a-z0-9-]+))?\s*(?:\(([^)]*)\))?")
_SOURCE = re.compile(r"(\S+)(?:\s+\(([^)]*)\))?")

Stanza = Mapping[str, str]


def debian_events(dpkg_root: Path = Path("/")) -> Iterator[Event]:
    """Events of every installed package, by source package; none where there is no dpkg list.

    Raises:
        OSError: the list is there and cannot be read.
    """
    path = dpkg_root / STATUS
    if not path.is_file() or path.stat().st_size > _STATUS_BYTES:
        return iter(())
    return numbered(_events(path.read_text("utf-8", "replace")))


def _events(status: str) -> Iterator[Event]:
    cases: dict[str, list[Stanza]] = {}
    for stanza in stanzas(status):
        if stanza.get("Package") and stanza.get("Status", "").endswith(" installed"):
            cases.setdefault(_source_of(stanza)[0], []).append(stanza)
    for case in sorted(cases):
        facts = CaseFacts(TENANT, case, SOURCE)
        for stanza in sorted(cases[case], key=lambda one: (one["Package"], one.get("Architecture", ""))):
            _package(facts, case, stanza)
        yield from facts.events()


def stanzas(text: str) -> Iterator[Stanza]:
    """The paragraphs of a control file (deb822); lines that are no field are passed over."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.split("\n"):
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    if fields:
        yield fields


def _source_of(stanza: Stanza) -> tuple[str, str]:
    """(source package, its version)."""
    match = _SOURCE.match(stanza.get("Source", "") or stanza["Package"])
    name, version = (match[1], match[2]) if match else (stanza["Package"], None)
    return name[:256], version or stanza.get("Version", "")


def _package(facts: CaseFacts, case: str, stanza: Stanza) -> None:
    name, version = stanza["Package"], stanza.get("Version", "")
    source = facts.entity("source", case, name=case, version=_source_of(stanza)[1], home_page=stanza.get("Homepage"))
    package = facts.entity(
        "package",
        name,
        name=name,
        summary=one_line(stanza.get("Description", "").split("\n")[0]),
        priority=stanza.get("Priority"),
        essential=stanza.get("Essential") == "yes" or None,
        installed_kib=_number(stanza.get("Installed-Size", "")),
        installed=True,
    )
    facts.relationship("builds", source, package)
    architecture = stanza.get("Architecture", "")
    release = facts.entity("version", f"{name}={version}:{architecture}", version=version, architecture=architecture)
    facts.relationship("has_version", package, release)
    if section := stanza.get("Section"):
        facts.relationship("in_section", package, facts.entity("section", section, name=section))
    for role, field in (("maintainer", "Maintainer"), ("original maintainer", "Original-Maintainer")):
        if written := stanza.get(field):
            _maintainer(facts, source, role, written)
    _dependencies(facts, package, stanza)


def _maintainer(facts: CaseFacts, source: End, role: str, written: str) -> None:
    who = person(*(one_line(part, 200) for part in parseaddr(written)))
    if who.identity:
        end = facts.entity("person", who.identity, name=who.name, email=who.email)
        facts.relationship("maintained_by", source, end, mark="" if role == "maintainer" else role, role=role)


def _dependencies(facts: CaseFacts, package: End, stanza: Stanza) -> None:
    for field, relation in _RELATIONS.items():
        for group in stanza.get(field, "").split(","):
            group = one_line(group)
            alternatives = [one for part in group.split("|") if (one := _DEPENDENCY.fullmatch(part.strip()))]
            for choice, found in enumerate(alternatives, 1):
                several = len(alternatives) > 1
                facts.relationship(
                    "depends_on",
                    package,
                    facts.entity("package", found[1]),
                    mark=f"{relation} {group}",
                    relation=relation,
                    specifier=found[3],
                    architecture=found[2],
                    optional=relation == "recommends",
                    choice=choice if several else None,
                    alternatives=group if several else None,
                )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
