"""The documents against the product: links, files, commands, targets, settings, metrics, routes and examples."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import typer
from pydantic import BaseModel

from actors.connectors import mapping_from_yaml, open_source
from actors.connectors.base import RawRecord
from cluster.config import Settings
from cluster.model import Event
from cluster.telemetry import metrics, stored
from serve_apps.api.app import build
from serve_apps.api.services import Services

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PACKAGES = ("cluster", "actors", "workloads", "overlays", "serve_apps", "configs", "tests", "bench", "docs")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?:{'|'.join(PACKAGES)})/[\w./-]*|Makefile|[\w-]+\.(?:toml|yaml)|requirements[\w-]*\.txt")


class Fence(NamedTuple):
    """One fenced block."""

    document: Path
    language: str
    text: str


@cache
def text_of(document: Path) -> str:
    return document.read_text()


def fences(*languages: str) -> list[Fence]:
    return [
        Fence(document, language, body)
        for document in DOCUMENTS
        for language, body in _FENCE.findall(text_of(document))
        if language in languages
    ]


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return _FENCE.sub("", text_of(document))


def named(document: Path) -> list[str]:
    """Inline code of a document."""
    return _CODE.findall(prose(document))


def anchors(document: Path) -> set[str]:
    """The fragments that headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def relative(document: Path) -> str:
    return str(document.relative_to(ROOT))


# --- links and files


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(prose(document)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, fragment = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), f"{relative(document)} links to {target}"
        if fragment:
            assert fragment in anchors(found), f"{relative(document)} links to {target}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_named_files_are_there(document: Path) -> None:
    for name in named(document):
        if _PATH.fullmatch(name):
            assert (ROOT / name).exists(), f"{relative(document)} names {name}"


def test_every_document_is_linked() -> None:
    linked = {
        (document.parent / target.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for target in _LINK.findall(prose(document))
    }
    assert set(DOCUMENTS) - linked - {ROOT / "README.md"} == set()


# --- commands and targets


def shell_lines() -> Iterator[tuple[Path, str]]:
    """Commands of shell blocks, and inline code that begins with a command."""
    for fence in fences("sh", "console"):
        for line in fence.text.replace("\\\n", " ").splitlines():
            yield fence.document, line.removeprefix("$ ")
    for document in DOCUMENTS:
        for code in named(document):
            yield document, code


def intelgraph_calls() -> list[tuple[Path, list[str]]]:
    """(document, words after `intelgraph`) of every call."""
    found = []
    for document, line in shell_lines():
        for call in re.findall(r"(?:^|[\s(;&|])(?:\.venv/bin/)?intelgraph ([^|;&)\n]+)", line):
            if not call.startswith("="):
                found.append((document, call.split(" #")[0].split()))
    return found


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what is left of them."""
    from serve_apps.cli.main import app

    command: Any = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, typer.core.TyperGroup) and rest and not rest[0].startswith("-"):
        known = command.commands.get(rest[0])
        if known is None and "file" in command.commands:  # `ingest FILE` is `ingest file FILE`
            return command.commands["file"], rest
        assert known is not None, f"intelgraph {' '.join(words)}: no command {rest[0]!r}"
        command, rest = known, rest[1:]
    return command, rest


def options_of(command: Any) -> set[str]:
    names = {"--help"}
    for parameter in command.params:
        names.update(parameter.opts)
        names.update(parameter.secondary_opts)
    return names


def test_commands_and_their_options_exist() -> None:
    calls = intelgraph_calls()
    assert len(calls) > 20
    for document, words in calls:
        for alternative in alternatives(words):
            command, rest = command_of(alternative)
            given = {word.partition("=")[0] for word in rest if re.match(r"-{1,2}[a-z]", word)}
            unknown = given - options_of(command)
            assert not unknown, f"{relative(document)}: intelgraph {' '.join(alternative)} has no {sorted(unknown)}"


def alternatives(words: list[str]) -> list[list[str]]:
    """`dlq list|show` stands for both (the shell's `|` has blanks around it)."""
    for at, word in enumerate(words):
        if "|" in word and not word.startswith("-"):
            return [[*words[:at], one, *words[at + 1 :]] for one in word.split("|")]
    return [words]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document, line in shell_lines():
        for target in re.findall(r"(?:^|&& |; )make ([a-z-]+)", line):
            assert target in targets, f"{relative(document)} names make {target}"


# --- settings, metrics, routes


def settings(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        found |= settings(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {prefix + name: value}
    return found


SETTINGS = settings(Settings())
SECTIONS = {name.partition(".")[0] for name in SETTINGS if "." in name}


def setting_rows(document: Path) -> dict[str, str]:
    """name → default of the tables headed `name | default`."""
    found: dict[str, str] = {}
    for table in re.findall(r"^\| name \| default \|.*\n\|[-|]+\n((?:\|.*\n)+)", text_of(document), re.MULTILINE):
        found |= {name: default.strip() for name, default in re.findall(r"^\| `([\w.]+)` \| ([^|]*) \|", table, re.M)}
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_settings_exist_and_have_these_defaults(document: Path) -> None:
    for name, default in setting_rows(document).items():
        assert name in SETTINGS, f"{relative(document)}: there is no setting {name}"
        assert default == str(SETTINGS[name]), f"{relative(document)}: {name}"
    for code in named(document):
        if re.fullmatch(r"[a-z]+\.[a-z_]+", code) and code.partition(".")[0] in SECTIONS and not is_file(code):
            assert code in SETTINGS, f"{relative(document)}: there is no setting {code}"


def is_file(code: str) -> bool:
    return code.rpartition(".")[2] in ("py", "log", "lock", "md", "json", "db", "yaml", "token", "key")


def test_every_setting_is_documented() -> None:
    assert set(setting_rows(ROOT / "docs" / "operations.md")) == set(SETTINGS)


def test_documented_metrics_are_those_that_there_are() -> None:
    documented = set(re.findall(r"^\| `(intelgraph_\w+)` ", text_of(ROOT / "docs" / "operations.md"), re.MULTILINE))
    families = {family.name: family.type for family in metrics.REGISTRY.collect()}
    families |= {f"intelgraph_{name}": "counter" for name in stored.HELP}
    assert documented == {f"{name}_total" if kind == "counter" else name for name, kind in families.items()}


def test_every_metric_is_set_somewhere() -> None:
    sources = [path for name in PACKAGES[:5] for path in (ROOT / name).rglob("*.py") if path.parent.name != "telemetry"]
    code = "\n".join(path.read_text() for path in sources)
    declared = re.findall(
        r"^([A-Z_]+) = _(?:counter|gauge|histogram)\(", Path(metrics.__file__).read_text(), re.MULTILINE
    )
    through_stage = {"STAGE_SECONDS", "READ_RECORDS"} if "metrics.stage(" in code else set()
    assert set(declared) == through_stage | {name for name in declared if f"metrics.{name}" in code}


def routes() -> set[str]:
    part: Any = object()
    names = ("push", "overlays", "snapshots", "shards", "sources", "dead_letters", "conservation", "applied")
    services = Services(Settings(), part, part, part, part, part, **dict.fromkeys(names, part))
    schema = build(services).openapi()
    return {f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods}


def test_routes_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| `((?:GET|POST) /[^`]*)` ", text_of(ROOT / "docs" / "query.md"), re.MULTILINE)
    assert set(rows) == routes()


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_named_routes_exist(document: Path) -> None:
    known = {route.partition(" ")[2] for route in routes()} | {"/openapi.json", "/v1"}
    for code in named(document):
        if match := re.fullmatch(r"(?:GET |POST )?(/(?:v1|healthz|readyz|metrics|openapi)[^?\s]*)(?:\?.*)?", code):
            assert match[1] in known, f"{relative(document)} names {code}"


# --- examples


@pytest.mark.parametrize("fence", fences("jsonl"), ids=lambda fence: relative(fence.document))
def test_example_events_are_events(fence: Fence) -> None:
    for line in fence.text.splitlines():
        msgspec.json.decode(line, type=Event)


@pytest.mark.parametrize("fence", fences("json"), ids=lambda fence: relative(fence.document))
def test_example_json_is_json(fence: Fence) -> None:
    try:
        msgspec.json.decode(fence.text)
    except msgspec.DecodeError:
        for line in fence.text.splitlines():
            msgspec.json.decode(line)


def test_example_csv_files_are_read(tmp_path: Path) -> None:
    """A CSV block is read as it stands, or with the YAML mapping that follows it."""
    read = 0
    for document in DOCUMENTS:
        blocks = _FENCE.findall(text_of(document))
        for (language, body), (next_language, next_body) in zip(blocks, [*blocks[1:], ("", "")], strict=False):
            if language != "csv":
                continue
            path = tmp_path / "example.csv"
            path.write_text(body)
            mapped = next_language == "yaml"
            mapping = mapping_from_yaml(next_body) if mapped else None
            defaults = {"tenant": "acme", "case": "c-1", "source": "hr"} if mapped else {}
            source = open_source(path, mapping=mapping, defaults=defaults)
            items = [item for batch in source.batches(None, 100, 1 << 20) for item in batch]
            rows = list(csv.reader(io.StringIO(body), delimiter=mapping.delimiter or "," if mapping else ","))
            assert len(items) >= len(rows) - 1
            for item in items:
                assert isinstance(item, RawRecord), f"{relative(document)}: {item}"
                event = msgspec.json.decode(item.payload)
                event.setdefault("op", "upsert")
                msgspec.convert(event, Event)
            read += 1
    assert read >= 2


@pytest.mark.parametrize("fence", fences("yaml"), ids=lambda fence: relative(fence.document))
def test_example_yaml_is_a_mapping_or_settings(fence: Fence) -> None:
    import yaml

    values = yaml.safe_load(fence.text)
    if "events" in values or "type" in values:
        mapping_from_yaml(fence.text)
    else:
        for section in values.values():
            if "uri" in section:
                section["secret_key"] = "of the environment"
            if isinstance(section, dict) and section.get("kind") == "postgresql":
                section["password"] = "of the environment"
        Settings.model_validate(values)


@pytest.mark.parametrize("fence", fences("python"), ids=lambda fence: relative(fence.document))
def test_example_python_runs(fence: Fence) -> None:
    exec(compile(fence.text, relative(fence.document), "exec"), {})  # noqa: S102 our own document
