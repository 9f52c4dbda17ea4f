"""Dead letters as the API shows and replays them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing

from actors.dead_letters import Replay
from actors.letter_findings import held_against
from actors.stack import Stack
from cluster.errors import Rejected
from cluster.stores.control_dead_letters import DeadLetter
from serve_apps.api.services import Json

_SEQUENCE = re.compile(r"[0-9]{1,18}")


class Letters:
    """Dead letters of a tenant, for its operators."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def page(self, tenant: str, limit: int, after: str | None) -> tuple[list[Json], str | None]:
        """Some dead letters, oldest first, and where the next page begins."""
        if after is not None and not _SEQUENCE.fullmatch(after):
            raise Rejected("after: give the `next` of the page before")
        found = self._stack.control.dead_letters.list(tenant, after=int(after or 0), limit=limit)
        return [_plain(letter) for letter in found], str(found[-1].sequence) if len(found) == limit else None

    def letter(self, tenant: str, id: str) -> Json:
        """One, and what of it breaks which part of its schema, or which rule. Raises NotFound."""
        found = self._stack.control.dead_letters.get(tenant, id)
        held = held_against(self._stack.control, self._stack.settings, found)
        return {**_plain(found), "held": held.as_plain()}

    def replay(self, tenant: str, actor: str, ids: Sequence[str] | None, dry_run: bool, limit: int) -> Json:
        """Send some (or, with None, all that wait) through the stages again."""
        with closing(self._stack.open_log()) as log:
            replay = Replay(self._stack.control, log, self._stack.settings)
            done = replay.replay(tenant, actor, ids=ids, dry_run=dry_run, limit=limit)
        told = [{"id": r.id, "state": r.state, "errorClass": r.error_class, "reason": r.reason} for r in done.letters]
        return {"dryRun": dry_run, "letters": told, "skipped": done.skipped, "positions": done.reached}


def _plain(letter: DeadLetter) -> Json:
    return {
        "id": letter.id, "source": letter.source, "epoch": letter.epoch, "position": list(letter.position),
        "type": letter.type, "errorClass": letter.error_class, "reason": letter.reason, "state": letter.state,
        "attempts": letter.attempts, "payload": letter.payload.decode("utf-8", "replace"),
        "payloadBytes": letter.payload_bytes, "whole": letter.whole, "payloadSha256": letter.payload_sha256,
        "headers": letter.headers, "firstSeen": letter.first_seen,
    }  # fmt: skip
