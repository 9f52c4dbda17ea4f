"""Decode: JSON bytes to events, typed, nothing looked at beyond the types."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.stages.bad import Bad, Slot
from cluster.config import RecordLimits
from cluster.model import Event

_decode = msgspec.json.Decoder(Event).decode


def decode(payloads: Sequence[bytes | Bad], limits: RecordLimits) -> list[Slot[Event]]:
    """Events in the order of their payloads."""
    longest = limits.record_bytes
    slots: list[Slot[Event]] = []
    for payload in payloads:
        try:
            slots.append(_decode(payload) if len(payload) <= longest else _too_large(payload, longest))  # type: ignore[arg-type]
        except TypeError:  # a slot that has failed before has no length
            slots.append(_passed_on(payload))
        except msgspec.ValidationError as error:
            slots.append(Bad("schema", f"not an event: {error}"))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            slots.append(Bad("decode", f"not JSON in UTF-8: {error}"))
        except RecursionError:
            slots.append(Bad("decode", "nested too deeply; send nested values as text"))
    return slots


def _too_large(payload: bytes | Bad, longest: int) -> Bad:
    return Bad("too_large", f"record of {len(payload):,} bytes; at most {longest:,}")  # type: ignore[arg-type]


def _passed_on(payload: bytes | Bad) -> Bad:
    if isinstance(payload, Bad):
        return payload
    raise TypeError(f"a payload is bytes, not {type(payload).__name__}")
