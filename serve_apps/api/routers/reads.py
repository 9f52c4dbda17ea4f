"""Reads of the graph: cases, entities, neighbourhoods, search."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from cluster.errors import Rejected
from cluster.ids import bucket_of
from cluster.query import hot, merge, validate
from cluster.query.answers import NeighboursPage
from cluster.query.ir import EntityQuery
from cluster.query.neighbours import read_neighbours
from cluster.query.validate import QueryLimits
from cluster.routing import Deadline
from overlays.freshness import marked
from serve_apps.api.auth import Context, ReaderToken
from serve_apps.api.edge import Segment
from serve_apps.api.positions import check_kept, newest, wait_until_applied, waited_for
from serve_apps.api.replies import reply
from serve_apps.api.services import Services

router = APIRouter()
Cursor = Annotated[str | None, Query(description="`next` of the page before")]
WaitFor = Annotated[str | None, Query(description="`position` of a push that the answer has to show")]


async def entity_of_path(
    services: Context, caller: ReaderToken, case: Segment, type: Segment, id: Segment
) -> EntityQuery:
    """The entity that a path names."""
    return validate.entity_query(limits_of(services), caller.tenant, case, type, id)


async def entity_of_query(services: Context, caller: ReaderToken, case: str, type: str, id: str) -> EntityQuery:
    """The entity that query parameters name: for ids that a path cannot carry (`.`, `..`)."""
    return validate.entity_query(limits_of(services), caller.tenant, case, type, id)


PathEntity = Annotated[EntityQuery, Depends(entity_of_path)]
QueryEntity = Annotated[EntityQuery, Depends(entity_of_query)]


def limits_of(services: Services) -> QueryLimits:
    """The limits that questions are checked against."""
    return QueryLimits(services.settings.query, services.settings.records)


async def _begin(services: Services, wait_for: str | None, bucket: int | None = None) -> Deadline:
    """The deadline of a read, after what it waits for is there; of one bucket only its own log partition counts."""
    deadline = services.fanout.deadline()
    if wait_for is not None:
        if services.applied is None:
            raise Rejected("wait_for: this installation takes no events")
        waited = waited_for(wait_for)
        positions, known = waited.positions, services.fanout.shard_map
        beyond = any(partition >= known.all_partitions for partition in positions)
        if waited.generation > newest(services.generations) or beyond:
            raise Rejected("wait_for: not a position of this installation's log; give one that a push has answered")
        if bucket is not None:
            own = known.partitions_of_bucket(bucket)
            positions = {partition: entry for partition, entry in positions.items() if partition in own}
        check_kept(waited._replace(positions=positions), services.generations)
        await wait_until_applied(services.applied, positions, deadline)
    return deadline


async def _entity(request: Request, services: Services, query: EntityQuery, wait_for: str | None) -> Response:
    bucket = bucket_of(query.tenant, query.case)
    deadline = await _begin(services, wait_for, bucket)
    found = await services.fanout.one(bucket, lambda shard: hot.read_entity(shard, query), deadline)
    now, stale_after_h = services.now(), services.settings.overlays.stale_after_h
    overlays = {name: marked(values, now, stale_after_h) for name, values in found.overlays.items()}
    return reply(request, msgspec.structs.replace(found, overlays=overlays))


async def neighbours_asked(
    hops: int = 1,
    types: Annotated[list[str], Query(description="relationship types that are followed")] = [],  # noqa: B006
    entity_types: Annotated[list[str], Query(description="entity types that are shown")] = [],  # noqa: B006
    direction: str = "any",
    relationships: Annotated[str, Query(description="none, keys or full")] = "keys",
    limit: int | None = None,
    cursor: Cursor = None,
    wait_for: WaitFor = None,
) -> dict[str, Any]:
    """The parameters of a neighbourhood, as they came."""
    shape = {"hops": hops, "limit": limit, "direction": direction, "detail": relationships}
    named = {"relationship_types": _split(types), "entity_types": _split(entity_types)}
    return {"shape": {**shape, **named}, "cursor": cursor, "wait_for": wait_for}


Asked = Annotated[dict[str, Any], Depends(neighbours_asked)]


def _split(values: list[str]) -> list[str]:
    return [name for value in values for name in value.split(",") if name]


async def _neighbours(request: Request, services: Services, entity: EntityQuery, asked: dict[str, Any]) -> Response:
    query = validate.neighbours_query(limits_of(services), entity, **asked["shape"])
    if asked["cursor"] is not None:
        distance, type_, id_ = services.cursors.open(query, asked["cursor"])
        query = dataclasses.replace(query, after=(distance, type_, id_))
    bucket = bucket_of(query.tenant, query.case)
    deadline = await _begin(services, asked["wait_for"], bucket)
    settings = services.settings.query
    page: NeighboursPage = await services.fanout.one(
        bucket, lambda shard: read_neighbours(shard, query, settings, services.types), deadline
    )
    following = services.cursors.seal(query, page.after) if page.after else None
    return reply(
        request,
        {
            "of": {"case": query.case, "type": query.type, "id": query.id},
            "entities": page.entities,
            "relationships": page.relationships,
            "next": following,
            "truncated": page.truncated,
            "supernodes": page.supernodes,
        },
    )


@router.get("/cases")
async def cases(
    request: Request,
    services: Context,
    caller: ReaderToken,
    limit: int | None = None,
    cursor: Cursor = None,
    wait_for: WaitFor = None,
) -> Response:
    """The tenant's cases in which something is visible, by name."""
    query = validate.cases_query(limits_of(services), caller.tenant, limit)
    if cursor is not None:
        query = dataclasses.replace(query, after=services.cursors.open(query, cursor)[0])
    deadline = await _begin(services, wait_for)
    merged = await services.fanout.every(lambda shard: hot.list_cases(shard, query), deadline)
    page = merge.merge_cases(merged.answers, query.limit)
    following = services.cursors.seal(query, [page.after]) if page.after is not None else None
    items = [{"case": name} for name in page.items]
    return reply(request, {"items": items, "next": following, "missing": merged.missing})


@router.get("/cases/{case}/entities/{type}/{id}")
async def entity(request: Request, services: Context, query: PathEntity, wait_for: WaitFor = None) -> Response:
    """An entity: merged properties, every source's own, claims about it, overlay values."""
    return await _entity(request, services, query, wait_for)


@router.get("/entity")
async def entity_named(request: Request, services: Context, query: QueryEntity, wait_for: WaitFor = None) -> Response:
    """The same, named by query parameters."""
    return await _entity(request, services, query, wait_for)


@router.get("/cases/{case}/entities/{type}/{id}/neighbors")
async def neighbors(request: Request, services: Context, query: PathEntity, asked: Asked) -> Response:
    """Entities within some hops, nearest first, and the relationships that lead to them."""
    return await _neighbours(request, services, query, asked)


@router.get("/neighbors")
async def neighbors_named(request: Request, services: Context, query: QueryEntity, asked: Asked) -> Response:
    """The same, named by query parameters."""
    return await _neighbours(request, services, query, asked)


@router.get("/search")
async def search(
    request: Request,
    services: Context,
    caller: ReaderToken,
    q: Annotated[str, Query(description="text in the id or a name, whatever its case")] = "",
    case: Annotated[str | None, Query(description="one case; all of the tenant's without it")] = None,
    type: Annotated[list[str], Query(description="entity types")] = [],  # noqa: B006
    prop: Annotated[list[str], Query(description="name=value, exactly; all have to hold")] = [],  # noqa: B006
    limit: int | None = None,
    cursor: Cursor = None,
    wait_for: WaitFor = None,
) -> Response:
    """Entities by text, type and properties, in one case or in all of the tenant's."""
    query = validate.search_query(limits_of(services), caller.tenant, case, q, _split(type), prop, limit)
    if cursor is not None:
        found_case, found_type, found_id = services.cursors.open(query, cursor)
        query = dataclasses.replace(query, after=(found_case, found_type, found_id))
    if query.case is not None:
        bucket = bucket_of(caller.tenant, query.case)
        deadline = await _begin(services, wait_for, bucket)
        page = await services.fanout.one(bucket, lambda shard: hot.search(shard, query), deadline)
        missing: Any = {}
    else:
        deadline = await _begin(services, wait_for)
        merged = await services.fanout.every(lambda shard: hot.search(shard, query), deadline)
        page, missing = merge.merge_found(merged.answers, query.limit), merged.missing
    following = services.cursors.seal(query, merge.place_of(page.items[-1])) if page.more and page.items else None
    return reply(request, {"items": page.items, "next": following, "missing": missing})
