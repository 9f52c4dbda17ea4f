"""The HTTP API as the command line asks it: a token of its own, errors of ours for problem documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cluster.errors import Corrupt, Forbidden, NotFound, Overloaded, Rejected, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import httpx

Json = dict[str, Any]
Parameters = Mapping[str, Any]
TIMEOUT_S = 30.0
_REFUSED = {401: Unauthenticated, 403: Forbidden, 404: NotFound}


class ApiClient:
    """One tenant's view of the running API. For one thread.

    Args:
        base: such as http://127.0.0.1:8080.
    """

    def __init__(self, base: str, token: str, timeout_s: float = TIMEOUT_S) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=base, headers=headers, timeout=timeout_s, trust_env=False)

    def get(self, path: str, **parameters: Any) -> Json:
        """The JSON answer; parameters that are None are left out.

        Raises:
            Rejected, NotFound, Forbidden, Unauthenticated: the API refuses.
            Unavailable, Overloaded: it does not answer, or not now.
        """
        import httpx

        asked = {name: value for name, value in parameters.items() if value not in (None, [], ())}
        try:
            answer = self._client.get(path, params=asked)
        except httpx.HTTPError as error:
            raise Unavailable(f"the API does not answer ({type(error).__name__}): see `intelgraph status`") from error
        return _checked(answer)

    def pages(self, path: str, limit: int, **parameters: Any) -> Iterator[Json]:
        """Items of all pages, up to `limit`."""
        cursor, left = None, limit
        while left > 0:
            page = self.get(path, **parameters, cursor=cursor, limit=min(left, 1_000))
            items = page["items"][:left]
            yield from items
            left -= len(items)
            cursor = page.get("next")
            if cursor is None:  # a page may be empty and others follow
                return

    def close(self) -> None:
        """Close connections."""
        self._client.close()


def entity_path(case: str, type: str, id: str) -> str:
    """The path of an entity."""
    return f"/v1/cases/{segment(case)}/entities/{segment(type)}/{segment(id)}"


def segment(name: str) -> str:
    """A name as one path segment."""
    return quote(name, safe="")


def _checked(answer: httpx.Response) -> Json:
    if answer.is_success:
        found: Json = answer.json()
        return found
    detail = _detail(answer)
    retry_s = float(answer.headers.get("retry-after", "1") or 1)
    match answer.status_code:
        case 429:
            raise Overloaded(detail, retry_s)
        case 409 | 502 | 503 | 504:
            raise Unavailable(detail, retry_s)
        case code if code >= 500:
            raise Corrupt(detail)
        case code:
            raise _REFUSED.get(code, Rejected)(detail)


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the API answered {answer.status_code}"
