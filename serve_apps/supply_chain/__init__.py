"""The machine's own software supply chain as events: the facts that `make demo` runs on.

    written = write_events(python_events(Path(sysconfig.get_path("purelib"))), folder / "python.jsonl")
    written = write_events(debian_events(), folder / "debian.jsonl")        # no events where there is no dpkg

The same machine gives the same bytes, so a second run is the same load and finds duplicates only.
"""

from serve_apps.supply_chain.debian import SOURCE as DEBIAN_SOURCE
from serve_apps.supply_chain.debian import TENANT as DEBIAN_TENANT
from serve_apps.supply_chain.debian import debian_events
from serve_apps.supply_chain.python import SOURCE as PYTHON_SOURCE
from serve_apps.supply_chain.python import TENANT as PYTHON_TENANT
from serve_apps.supply_chain.python import python_events
from serve_apps.supply_chain.records import Event, Written, content_digest, write_events

__all__ = [
    "DEBIAN_SOURCE", "DEBIAN_TENANT", "PYTHON_SOURCE", "PYTHON_TENANT", "Event", "Written", "content_digest",
    "debian_events", "python_events", "write_events",
]  # fmt: skip
