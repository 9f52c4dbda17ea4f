"""`query`: questions to the running HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from serve_apps.cli.api_client import ApiClient, entity_path
from serve_apps.cli.output import exact
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import TenantOption, group, verb

CaseName = Annotated[str, typer.Argument(help="The case.")]
TypeName = Annotated[str, typer.Argument(help="The entity's type.")]
EntityId = Annotated[str, typer.Argument(help="The entity's id.")]
Limit = Annotated[int, typer.Option(help="At most so many.", min=1, max=100_000)]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    query = group("Ask the running API.")
    app.add_typer(query, name="query", rich_help_panel="Questions")
    verb(query, "cases")(cases)
    verb(query, "search")(search)
    verb(query, "entity")(entity)
    verb(query, "neighbors")(neighbors)


def client(session: Session, tenant: str) -> ApiClient:
    """The API with a reading token that lives for ten minutes. Raises NotUp."""
    from serve_apps.tokens import TokenAuthority

    token = TokenAuthority.open(session.state_dir).issue(tenant, ["read"], (), 600, "command line")
    return ApiClient(session.node.api, token)


def cases(session: Session, tenant: TenantOption, limit: Limit = 100) -> None:
    """List a tenant's cases."""
    items = list(client(session, tenant).pages("/v1/cases", limit))
    session.output.result({"items": items})
    session.output.table(f"cases of {tenant}", ("case",), [(item["case"],) for item in items])


def search(
    session: Session,
    tenant: TenantOption,
    text: Annotated[str, typer.Argument(help="Contained in the id or a name, whatever its case.")] = "",
    case: Annotated[str | None, typer.Option("--case", "-c", help="One case. [default: all of the tenant's]")] = None,
    types: Annotated[list[str], typer.Option("--type", help="Only this entity type; several times.")] = [],  # noqa: B006
    props: Annotated[list[str], typer.Option("--prop", help="name=value, exactly; several times.")] = [],  # noqa: B006
    limit: Limit = 20,
) -> None:
    """Find entities by text, type and properties, in one case or in all of a tenant's."""
    asked = {"q": text, "case": case, "type": types, "prop": props}
    items = list(client(session, tenant).pages("/v1/search", limit, **asked))
    session.output.result({"items": items})
    rows = [(item["case"], item["type"], item["id"], brief(item["props"])) for item in items]
    session.output.table("found", ("case", "type", "id", "properties"), rows)


def entity(session: Session, case: CaseName, type: TypeName, id: EntityId, tenant: TenantOption) -> None:
    """Show an entity: its merged properties, every source's own side by side, claims, overlay values."""
    found = client(session, tenant).get(entity_path(case, type, id))
    session.output.result(found)
    if not session.output.as_json:
        show_entity(session, found)


def show_entity(session: Session, found: Mapping[str, Any]) -> None:
    """Print an entity: one row a property, one column a source."""
    output, sources = session.output, found["sources"]
    names = sorted({*found["props"], *(name for source in sources for name in source["props"])})
    said = [found["props"], *(source["props"] for source in sources)]
    rows = [(name, *(exact(props.get(name)) for props in said)) for name in names]
    heads = [f"{s['source']} ({s['epoch']}, {', '.join(map(str, s['position']))}{'' if s['live'] else ', deleted'})"
             for s in sources]  # fmt: skip
    title = f"{found['type']} {found['id']} in {found['case']}"
    output.table(title, ("property", "shown", *heads), rows)
    if found["claims"]:
        output.table("claims", ("predicate", "value", "confidence", "by"), [
            (c["predicate"], exact(c["value"]), exact(c.get("confidence")),
             ", ".join(s["source"] for s in c["sources"]))
            for c in found["claims"]
        ])  # fmt: skip
    for name, values in found["overlays"].items():
        output.table(f"overlay {name}", ("value", ""), sorted(values.items()))


def neighbors(
    session: Session,
    case: CaseName,
    type: TypeName,
    id: EntityId,
    tenant: TenantOption,
    hops: Annotated[int, typer.Option(help="How far.", min=1, max=3)] = 1,
    types: Annotated[list[str], typer.Option("--type", help="Follow only this relationship; several times.")] = [],  # noqa: B006
    direction: Annotated[str, typer.Option(help="out, in or any.")] = "any",
    limit: Limit = 50,
) -> None:
    """Show what an entity is connected with, nearest first."""
    path = entity_path(case, type, id) + "/neighbors"
    found = client(session, tenant).get(path, hops=hops, types=types, direction=direction, limit=min(limit, 1_000))
    session.output.result(found)
    via = _ways(found["relationships"])
    rows = [(e["hops"], e["type"], e["id"], ", ".join(via.get((e["type"], e["id"]), ())), brief(e["props"]))
            for e in found["entities"]]  # fmt: skip
    cut = ", ".join(found["truncated"])
    caption = "more: raise --limit" if found["next"] else f"cut: {cut}" if cut else ""
    session.output.table(f"around {type} {id}", ("hops", "type", "id", "by", "properties"), rows, caption)


def _ways(links: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """How each entity is reached: relationship types with an arrow."""
    ways: dict[tuple[str, str], set[str]] = {}
    for link in links:
        start, end = (link["from"]["type"], link["from"]["id"]), (link["to"]["type"], link["to"]["id"])
        ways.setdefault(end, set()).add(f"→{link['type']}")
        ways.setdefault(start, set()).add(f"←{link['type']}")
    return {key: sorted(names) for key, names in ways.items()}


def brief(props: Mapping[str, Any], most: int = 3) -> str:
    """The first few properties as text."""
    shown = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in props.items()]
    return ", ".join(text if len(text) <= 60 else text[:59] + "…" for text in shown[:most])
