"""A schema registry with the Confluent-compatible API, over HTTP.

A schema has a number that never means another one, so what was fetched is kept, up to a bound. Only what the registry
itself says is believed: an answer 404 that does not carry the registry's own code (a wrong address, a proxy) is a
registry that does not answer.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from cluster.config_registry import RegistrySettings
from cluster.errors import NotFound, Rejected, Unavailable
from cluster.streams.schemas import Reference, Schema

T = TypeVar("T")
Latest = Literal["latest"]
_NOT_FOUND = range(40400, 40500)
_SHOWN_CHARACTERS, _PARTS_MOST, _REASONS_MOST = 300, 100, 20


class _Found(msgspec.Struct):
    schema: str
    schemaType: str = "AVRO"  # noqa: N815 the API's name
    references: tuple[Reference, ...] = ()
    id: int = 0
    version: int = 0


class _Place(msgspec.Struct, frozen=True):
    subject: str
    version: int


class _Checked(msgspec.Struct):
    is_compatible: bool
    messages: list[str] = []


class _Registered(msgspec.Struct):
    id: int


class _Refusal(msgspec.Struct):
    error_code: int
    message: str | None = None


@dataclass(frozen=True, slots=True)
class SubjectVersion:
    """A version of a subject, with its schema."""

    subject: str
    version: int
    schema: Schema


class SchemaRegistry:
    """For one thread. Every method but `register` only reads.

    Raises (every method): Unavailable: it does not answer, or not as a registry does. Rejected: it refuses who asks.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        if not settings.url:
            raise Rejected("name the schema registry: streams.registry.url")
        self._settings, self._schemas = settings, OrderedDict[int, Schema]()
        secret = settings.password.get_secret_value()
        try:
            trusted = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise Rejected(f"streams.registry.ca_file {settings.ca_file}: {error.strerror or error}") from error
        self._client = httpx.Client(
            auth=(settings.user, secret) if settings.user else None, timeout=settings.timeout_s, verify=trusted,
            trust_env=False, headers={"accept": "application/vnd.schemaregistry.v1+json, application/json"},
        )  # fmt: skip

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._client.close()

    def schema(self, id: int) -> Schema:
        """The schema of that number, with those that it refers to. Raises NotFound."""
        if (found := self._schemas.get(id)) is None:
            found = self._schemas[id] = self._whole(id, self._get(f"/schemas/ids/{id}", _Found))
            while len(self._schemas) > self._settings.cached_schemas:
                self._schemas.popitem(last=False)
        self._schemas.move_to_end(id)
        return found

    def knows(self, id: int) -> bool:
        """Whether the registry has the schema of that number now."""
        try:
            self._get(f"/schemas/ids/{id}", _Found)
        except NotFound:
            return False
        return True

    def places(self, id: int) -> list[tuple[str, int]]:
        """(subject, version) of a schema. Raises NotFound."""
        return [(place.subject, place.version) for place in self._get(f"/schemas/ids/{id}/versions", list[_Place])]

    def subjects(self) -> list[str]:
        """All subjects by name."""
        return sorted(self._get("/subjects", list[str]))

    def versions(self, subject: str) -> list[int]:
        """The versions of a subject, oldest first. Raises NotFound."""
        return sorted(self._get(f"/subjects/{_part(subject)}/versions", list[int]))

    def version(self, subject: str, version: int | Latest = "latest") -> SubjectVersion:
        """One version of a subject. Raises NotFound."""
        found = self._get(f"/subjects/{_part(subject)}/versions/{version}", _Found)
        return SubjectVersion(subject, found.version, self._whole(found.id, found))

    def register(self, subject: str, kind: str, text: str, references: Sequence[Reference] = ()) -> int:
        """Adds a version to a subject; returns the schema's number. Safe to call twice.

        Raises:
            Rejected: it is no schema, or not compatible with what is there.
        """
        body = _body(kind, text, references)
        return self._call("POST", f"/subjects/{_part(subject)}/versions", _Registered, body).id

    def against(
        self,
        subject: str,
        kind: str,
        text: str,
        version: int | Latest = "latest",
        references: Sequence[Reference] = (),
    ) -> list[str]:
        """Why a schema is not compatible with a version of a subject, by the subject's own rule; empty: it is.

        Raises:
            NotFound: there is no such version; some registries let anything follow in a subject that they do not have.
            Rejected: it is no schema.
        """
        path = f"/compatibility/subjects/{_part(subject)}/versions/{version}?verbose=true"
        found = self._call("POST", path, _Checked, _body(kind, text, references))
        if found.is_compatible:
            return []
        told = [message[:_SHOWN_CHARACTERS] for message in found.messages[:_REASONS_MOST]]
        return told or ["the registry does not let it follow, and does not say why"]

    def _whole(self, id: int, found: _Found) -> Schema:
        parts: dict[str, str] = {}
        self._gather(found.references, parts)
        return Schema(id, found.schemaType, found.schema, tuple(parts.items()), found.references)

    def _gather(self, references: Sequence[Reference], parts: dict[str, str]) -> None:
        for reference in references:
            if reference.name in parts:
                continue
            if len(parts) >= _PARTS_MOST:
                raise Rejected(f"a schema refers to more than {_PARTS_MOST} others")
            found = self._get(f"/subjects/{_part(reference.subject)}/versions/{reference.version}", _Found)
            parts[reference.name] = ""  # one that leads back to itself ends here
            self._gather(found.references, parts)
            del parts[reference.name]
            parts[reference.name] = found.schema

    def _get(self, path: str, shape: type[T]) -> T:
        return self._call("GET", path, shape)

    def _call(self, method: str, path: str, shape: type[T], body: Any = None) -> T:
        headers = {} if body is None else {"content-type": "application/vnd.schemaregistry.v1+json"}
        content = None if body is None else msgspec.json.encode(body)
        url = self._settings.url.rstrip("/") + path
        try:
            with self._client.stream(method, url, content=content, headers=headers) as response:
                answer = self._bounded(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            told = str(error) or type(error).__name__
            raise Unavailable(f"the schema registry {self._settings.url} does not answer: {told}") from error
        if response.is_success:
            return self._read(answer, shape)
        raise self._refused(response.status_code, answer)

    def _bounded(self, response: httpx.Response) -> bytes:
        answer = bytearray()
        for chunk in response.iter_bytes():
            answer += chunk
            if len(answer) > self._settings.schema_bytes:
                most = f"{self._settings.schema_bytes:,} bytes (streams.registry.schema_bytes)"
                raise Rejected(f"the schema registry's answer is longer than {most}")
        return bytes(answer)

    def _read(self, answer: bytes, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where = f"{self._settings.url} answers as no schema registry does ({error})"
            raise Unavailable(f"{where}: is streams.registry.url right?") from error

    def _refused(self, status: int, answer: bytes) -> Exception:
        try:
            told = msgspec.json.decode(answer, type=_Refusal)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            told = _Refusal(0)
        message = (told.message or "")[:_SHOWN_CHARACTERS]
        if status == httpx.codes.NOT_FOUND and told.error_code in _NOT_FOUND:
            return NotFound(f"the schema registry has no such thing: {message}")
        if status in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.BAD_REQUEST):
            return Rejected(f"the schema registry refuses it: {message or status}")
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return Unavailable(
                f"the schema registry {self._settings.url} refuses this installation ({status}): see"
                " streams.registry.user and INTELGRAPH__STREAMS__REGISTRY__PASSWORD"
            )
        return Unavailable(f"the schema registry {self._settings.url} answers {status} {message}".rstrip())


def _part(subject: str) -> str:
    return quote(subject, safe="")


def _body(kind: str, text: str, references: Sequence[Reference]) -> dict[str, Any]:
    named = [{"name": one.name, "subject": one.subject, "version": one.version} for one in references]
    return {"schema": text, "schemaType": kind, **({"references": named} if named else {})}
