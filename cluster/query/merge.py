"""Pages of several shards into one page, in the order of the question. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.query.answers import CasesPage, FoundPage, FoundView


def place_of(found: FoundView) -> tuple[str, str, str]:
    """What search answers are ordered by, and what their cursor holds."""
    return found.case, found.type, found.id


def merge_found(pages: Sequence[FoundPage], limit: int) -> FoundPage:
    """The first `limit` of all pages; each of them has the first `limit` of its shard."""
    items = sorted((item for page in pages for item in page.items), key=place_of)
    return FoundPage(items[:limit], len(items) > limit or any(page.more for page in pages))


def merge_cases(pages: Sequence[CasesPage], limit: int) -> CasesPage:
    """The first `limit` cases of all pages, each once, as far as all of them have looked."""
    after = min((page.after for page in pages if page.after is not None), default=None)
    items = sorted({name for page in pages for name in page.items if after is None or name <= after})
    return CasesPage(items[:limit], items[limit - 1] if len(items) > limit else after)
