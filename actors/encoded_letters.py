"""Dead letters that hold a value as their topic has it: read as the stream would read it now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from actors.connectors.json_values import JsonValues
from actors.connectors.schema_values import record_of, wire
from actors.stream_schemas import told
from cluster.config_registry import RegistrySettings
from cluster.errors import BadRecord, NotFound, Rejected
from cluster.stores.control import ControlStore
from cluster.stores.control_dead_letters import DeadLetter
from cluster.stores.schema_registry import SchemaRegistry
from cluster.streams.model import StreamSpec
from cluster.streams.schemas import Schema, SeenSchema


class EncodedLetters:
    """Reads such letters. For one thread.

    Args:
        settings: of the registry; it is asked when the first letter needs it.
    """

    def __init__(self, control: ControlStore, settings: RegistrySettings) -> None:
        self._control, self._settings = control, settings
        self._registry: SchemaRegistry | None = None

    def refusal(self, letter: DeadLetter) -> str:
        """Why the letter cannot be tried, whatever its bytes say; empty if it can. Raises Unavailable."""
        try:
            spec, registry = self._control.streams.get(letter.source).spec, self._asked()
        except Rejected as error:
            return f"nothing says how it is to be read: {error.reason}"
        with suppress(Rejected):  # what the registry lacks is the letter's affair; whether it answers is not
            if spec.schema == "pinned":
                self._pinned(spec)
            else:
                return self._refused(spec, registry.schema(wire(letter.payload)[0]))
        return ""

    def tenants(self, letter: DeadLetter) -> Sequence[str]:
        """Whose record it may be: before it is read nobody knows, so the stream's first tenant has it."""
        tenants = self._control.streams.get(letter.source).spec.tenants
        return tenants if letter.tenant == tenants[0] else (letter.tenant,)

    def _refused(self, spec: StreamSpec, schema: Schema) -> str:
        """Why a schema at which the stream has stopped is not read; empty for any other."""
        for one in self._control.stream_schemas.list(spec.name):
            if one.key == schema.fingerprint and one.state == "refused":
                return f"the stream has stopped at its schema: {told(spec.name, one)}"
        return ""

    def described(self, letter: DeadLetter) -> tuple[str, Schema, bytes] | None:
        """(what the stream has the schema for, the schema that describes the value, the value without what names it);
        None where the stream has pinned none.

        Raises:
            BadRecord: it names no schema, or the registry does not have it. Rejected: no registry is configured, or
            there is no such stream. Unavailable: the registry does not answer.
        """
        spec = self._control.streams.get(letter.source).spec
        known = self._control.stream_schemas.list(spec.name)
        if spec.schema == "pinned":
            met = [one for one in known if one.state == "pinned"]
            if not met:
                return None
            number, payload = met[0].schema_id, letter.payload
        else:
            number, payload = wire(letter.payload)
        registry = self._asked()
        try:
            schema = registry.schema(number)
        except NotFound as error:
            raise BadRecord("schema", f"schema {number}: {error.reason}") from error
        return _placed([one for one in known if one.key == schema.fingerprint]), schema, payload

    def json(self, letter: DeadLetter) -> bytes:
        """Its value as JSON. Raises BadRecord, Unavailable."""
        spec = self._control.streams.get(letter.source).spec
        if spec.schema == "pinned":
            self._pinned(spec)(letter.payload)
            return letter.payload
        number, payload = wire(letter.payload)
        try:
            schema = self._asked().schema(number)
            met = [one for one in self._control.stream_schemas.list(spec.name) if one.key == schema.fingerprint]
            subject, version = (met[0].subject, met[0].version) if met else ("", 0)
            return record_of(spec, schema, subject, version)(payload)
        except BadRecord:
            raise
        except Rejected as error:
            raise BadRecord("schema", f"schema {number}: {error.reason}") from error

    def _pinned(self, spec: StreamSpec) -> Callable[[bytes], object]:
        pins = [one for one in self._control.stream_schemas.list(spec.name) if one.state == "pinned"]
        try:
            return JsonValues(self._asked().schema(pins[0].schema_id)).read if pins else bytes
        except NotFound as error:
            raise BadRecord("schema", f"the pinned schema: {error.reason}") from error

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        if self._registry is not None:
            self._registry.close()

    def _asked(self) -> SchemaRegistry:
        if self._registry is None:
            self._registry = SchemaRegistry(self._settings)
        return self._registry


def _placed(met: Sequence[SeenSchema]) -> str:
    """How a schema stands with the stream."""
    if not met:
        return "not met by the stream"
    return f"{met[0].state}, {met[0].subject} version {met[0].version}" if met[0].version else met[0].state
