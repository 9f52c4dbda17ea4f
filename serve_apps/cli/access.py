"""`token`: who may ask the API."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from serve_apps.cli.exits import Misused
from serve_apps.cli.session import Session
from serve_apps.cli.verbs import TenantOption, verb

_TTL = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    verb(app, "token", rich_help_panel="Running it")(token)


def token(
    session: Session,
    tenant: TenantOption,
    scopes: Annotated[list[str], typer.Option("--scope", help="read, ingest or operate; several times.")] = ["read"],  # noqa: B006
    sources: Annotated[
        list[str], typer.Option("--source", help="A source that it may write, or `*`; several times.")
    ] = [],  # noqa: B006
    ttl: Annotated[str, typer.Option(help="How long it is valid: 30m, 24h, 7d.")] = "24h",
    subject: Annotated[str, typer.Option(help="Who it is for; the audit names them.")] = "command line",
) -> None:
    """Make a token for the API and print it. Whoever can read the state directory can make one."""
    from serve_apps.tokens import TokenAuthority

    seconds = seconds_of(ttl)
    made = TokenAuthority.open(session.state_dir).issue(tenant, scopes, sources, seconds, subject)
    if session.was_started:  # before the first start there is no audit
        detail = {"scopes": sorted(scopes), "sources": sorted(sources), "expires_in_s": seconds}
        session.control.audit.append(tenant, "command line", "token.issue", subject, time.time(), detail)
    session.output.result({"tenant": tenant, "scopes": sorted(scopes), "expires_in_s": seconds, "token": made})
    session.output.lines_for_people([made])


def seconds_of(ttl: str) -> int:
    """Seconds of a lifetime such as 30m. Raises Misused."""
    match = _TTL.fullmatch(ttl)
    if match is None:
        raise Misused(f"--ttl {ttl}: write a number and one of s, m, h, d, such as 24h")
    return int(match[1]) * _SECONDS[match[2]]
