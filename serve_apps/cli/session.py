"""What one command works with: settings, the node, the stores, each opened when it is first asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from serve_apps.cli.exits import NotUp
from serve_apps.cli.output import Output

if TYPE_CHECKING:
    from actors.stack import Stack
    from cluster.config import Settings
    from cluster.config_fields import Section
    from cluster.stores.control import ControlStore
    from cluster.stores.graph import GraphShard
    from cluster.stores.log import EventLog
    from serve_apps.node_state import NodeState

LOOPBACK_STAYS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Without it Ray takes 127.0.0.1 for this host's outer address, where an embedded cluster does not listen. Ray reads it
when it is imported, so it is set before anything of a command is."""


def _files(section: Section, prefix: str) -> Iterator[tuple[str, str]]:
    """(variable of the environment, value) of every setting that is a path, absolute."""
    for name in type(section).model_fields:
        value, variable = getattr(section, name), f"{prefix}__{name.upper()}"
        if isinstance(value, Path):
            yield variable, json.dumps(str(value.absolute()))
        elif hasattr(type(value), "model_fields"):
            yield from _files(value, variable)


class Session:
    """One command's surroundings. For one thread; `close` ends what was opened.

    Args:
        state_dir: overrides the configuration's.
        config: YAML file; INTELGRAPH_CONFIG names it when absent.
    """

    def __init__(self, state_dir: Path | None = None, config: Path | None = None, as_json: bool = False) -> None:
        self._state_dir, self._config = state_dir, config
        os.environ.setdefault(LOOPBACK_STAYS, "0")
        self._opened = ExitStack()
        self.output = Output(as_json)

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._opened.close()

    @cached_property
    def settings(self) -> Settings:
        """The configuration, its state directory absolute. Raises Rejected."""
        from cluster import config

        loaded = config.load(self._config)
        folder = (self._state_dir or loaded.state_dir).expanduser().resolve()
        return loaded.model_copy(update={"state_dir": folder})

    @property
    def state_dir(self) -> Path:
        """Where the installation keeps everything, absolute."""
        return self.settings.state_dir

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a child process that has to see the same settings, files included: it works elsewhere."""
        named = dict(_files(self.settings, "INTELGRAPH"))
        if config := self._config or os.environ.get("INTELGRAPH_CONFIG"):
            named["INTELGRAPH_CONFIG"] = str(Path(config).resolve())
        inherited = {name: value for name, value in os.environ.items() if name != LOOPBACK_STAYS}
        return {**inherited, **named}

    @property
    def was_started(self) -> bool:
        """Whether there is a control store, as far as this machine can tell."""
        return self.settings.control.kind != "sqlite" or (self.state_dir / "control.db").exists()

    @cached_property
    def stack(self) -> Stack:
        """The stores. Raises NotUp where the system was never started."""
        if not self.was_started:
            raise NotUp(f"there is nothing in {self.state_dir} yet: start the system with `intelgraph up`")
        from actors.stack import Stack

        return Stack(self.settings)

    @cached_property
    def control(self) -> ControlStore:
        """The control store; it can be read while the system is down."""
        control = self.stack.control
        self._opened.callback(control.close)
        return control

    @cached_property
    def node(self) -> NodeState:
        """The running node; from then on this process may import Ray, whose environment is set. Raises NotUp."""
        from serve_apps.node_state import ray_environment, read_node

        found = read_node(self.state_dir)
        if found is None:
            raise NotUp(f"IntelGraph is not up in {self.state_dir}: start it with `intelgraph up`")
        if found.phase != "ready":
            raise NotUp(f"IntelGraph is not ready yet (starting: {found.phase}): try again in a moment")
        os.environ.update(ray_environment(self.state_dir, several_hosts=bool(self.settings.ray.address)))
        return found

    @property
    def ray_token(self) -> Path:
        """The file with the token of Ray's dashboard."""
        from serve_apps.node_state import token_file

        return token_file(self.state_dir, several_hosts=bool(self.settings.ray.address))

    def require_node(self) -> None:
        """Nothing, where the system is up and ready. Raises NotUp."""
        self.node  # noqa: B018 looking is the check

    @cached_property
    def log(self) -> EventLog:
        """A connection to the event log. Raises NotUp, Unavailable."""
        self.require_node()
        log = self.stack.open_log()
        self._opened.callback(log.close)
        return log

    @cached_property
    def shards(self) -> dict[str, GraphShard]:
        """A connection to each shard that owns buckets, by id. Raises NotUp, Unavailable."""
        self.require_node()
        opened: dict[str, GraphShard] = {}
        for shard_id in self.stack.current_map().shards:
            opened[shard_id] = self.stack.open_shard(shard_id)
            self._opened.callback(opened[shard_id].close)
        return opened
