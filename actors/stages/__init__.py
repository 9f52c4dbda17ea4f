"""The stages of ingest: functions over a batch, without I/O. The way of a batch:

    payloads ─ decode ─► events ─ validate ─ normalise ─ enrich ─► events ─ place ─► records ─ route ─► log entries

A batch keeps its length and order until `route`: where a record has failed, a `Bad` stands in its slot, says why, and
every later stage passes it on. So one bad record delays nothing, and its index is its place in what was sent. A batch
belongs to the stage that has it: events are changed in place, nothing else is. `actors.admission` strings the stages
together and measures them.
"""

from actors.stages.bad import Bad, Slot
from actors.stages.decode import decode
from actors.stages.enrich import Enricher, Enrichers, enrich
from actors.stages.normalise import normalise
from actors.stages.origin import Origin
from actors.stages.records import place, record_of
from actors.stages.route import Routed, route
from actors.stages.validate import validate

__all__ = [
    "Bad", "Enricher", "Enrichers", "Origin", "Routed", "Slot", "decode", "enrich", "normalise", "place", "record_of",
    "route", "validate",
]  # fmt: skip
