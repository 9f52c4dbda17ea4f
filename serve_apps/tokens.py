"""Tokens: who asks, for which tenant, and what they may do. Signed with a key of this installation.

    TokenAuthority.open(state_dir) ─► issue(tenant, scopes…) ─► "eyJ…" ─► verify("eyJ…") ─► Principal

Access tokens after RFC 9068 (`typ` is `at+jwt`), ES256, checked after RFC 8725: one algorithm, `crit` refused, keys
only from this installation's own folder, never named by a path or fetched from where a token says. The keys are files
of mode 0600, one JWK each, in `keys/`; the youngest signs, all verify, so a key is rotated by adding one and removed
by deleting its file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from cluster.embedded.passwords import write_private
from cluster.embedded.paths import private_folder
from cluster.errors import Corrupt, Rejected, Unauthenticated
from cluster.model import from_outside

SCOPES = frozenset({"read", "ingest", "operate"})
ALGORITHM = "ES256"
ISSUER = "intelgraph"
AUDIENCE = "intelgraph-api"
TOKEN_BYTES_MAX = 8_192
LEEWAY_S = 30
LIFETIME_S_MAX = 90 * 24 * 3600
RELOAD_S = 10.0
"""How often key files are looked for again: then added ones count and deleted ones do not."""
SEEN_MAX = 1_024
"""So many tokens whose signature is good are remembered until key files are looked for again."""
_KID = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_HEADER_FIELDS = frozenset({"alg", "typ", "kid"})
_REFUSED = "the token is not valid here; get a new one (`intelgraph token`)"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a verified token speaks for. The tenant of every request comes from here and from nowhere else.

    Args:
        subject: who it was issued to, for the audit.
        sources: those it may write with the scope `ingest`; `*` alone is every source of the tenant.
        expires_s: seconds since 1970.
    """

    tenant: str
    subject: str
    scopes: frozenset[str]
    sources: tuple[str, ...]
    expires_s: int

    def may_write(self, source: str) -> bool:
        """Whether the token names the source (or all), and it is none of ours."""
        return from_outside(source) and ("*" in self.sources or source in self.sources)


class TokenAuthority:
    """Issues and verifies. Safe for any thread; holds private keys, so it is never pickled or logged."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()
        self._keys: dict[str, ECKey] = {}
        self._seen: dict[bytes, dict[str, Any]] = {}
        self._signing = ""
        self._loaded_s = float("-inf")
        self._load()

    @classmethod
    def open(cls, state_dir: Path, clock: Callable[[], float] = time.time) -> TokenAuthority:
        """The authority of a state directory; makes its first key where there is none. Safe to call again.

        Raises:
            Rejected: others may read a key file. Corrupt: a key file is no key.
        """
        folder = private_folder(private_folder(state_dir) / "keys")
        if not list(folder.glob("*.json")):
            add_key(folder)
        return cls(folder, clock)

    def issue(
        self,
        tenant: str,
        scopes: Iterable[str],
        sources: Iterable[str] = (),
        ttl_s: int = 24 * 3600,
        subject: str = "local",
    ) -> str:
        """A new token.

        Raises:
            Rejected: a scope or source cannot be given, or the lifetime is out of range.
        """
        granted, writable = frozenset(scopes), tuple(sorted(set(sources)))
        if not granted or not granted <= SCOPES:
            raise Rejected(f"scopes: choose from {', '.join(sorted(SCOPES))}")
        if not tenant or len(tenant) > 256 or not 0 < ttl_s <= LIFETIME_S_MAX:
            raise Rejected(f"give a tenant of 1 to 256 characters and a lifetime of 1 to {LIFETIME_S_MAX} seconds")
        if any(not from_outside(source) for source in writable):
            raise Rejected("sources named overlay/… and system/… are written by the system alone")
        now = int(self._clock())
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "tenant": tenant, "scope": " ".join(sorted(granted)),
            "sources": list(writable), "iat": now, "nbf": now, "exp": now + int(ttl_s),
            "jti": secrets.token_urlsafe(12),
        }  # fmt: skip
        header = {"alg": ALGORITHM, "typ": "at+jwt", "kid": self._signing}
        token = jwt.encode(header, claims, self._keys[self._signing], algorithms=[ALGORITHM])
        if len(token) > TOKEN_BYTES_MAX:
            raise Rejected(f"the token would be over {TOKEN_BYTES_MAX} bytes; name fewer sources, or `*`")
        return token

    def verify(self, token: str) -> Principal:
        """Whom a token speaks for.

        Raises:
            Unauthenticated: it does not; the message never says why, the cause does.
        """
        try:
            return _principal(self._claims(token), self._clock())
        except (JoseError, ValueError, TypeError, RecursionError, binascii.Error) as error:
            raise Unauthenticated(_REFUSED) from error

    def _claims(self, token: str) -> dict[str, Any]:
        """What a token with a good signature says; remembered by the token's digest, for as long as its key is."""
        if not 0 <= self._clock() - self._loaded_s < RELOAD_S:  # also where the clock was set back
            self._load()
        seen, keys = self._seen, self._keys
        name = hashlib.sha256(token.encode()).digest()
        claims = seen.get(name)
        if claims is None:
            claims = jwt.decode(token, _key_of(_header(token), keys), algorithms=[ALGORITHM]).claims
            if len(seen) >= SEEN_MAX:
                seen.clear()
            seen[name] = claims
        return claims

    def _load(self) -> None:
        with self._lock:
            self._loaded_s = self._clock()
            files = sorted(self._folder.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
            keys = {path.stem: _read_key(path) for path in files}
            if not keys:
                raise Corrupt(f"no signing key in {self._folder}: put it back, or start again to make a new one")
            # in this order: who takes the new memory takes the new keys too, as `_claims` looks the other way round
            self._signing, self._keys = files[-1].stem, keys
            self._seen = {}


def add_key(folder: Path) -> str:
    """Make a signing key and return its id. The file appears whole or not at all."""
    key = ECKey.generate_key("P-256", auto_kid=False)
    kid = key.thumbprint()
    body = json.dumps({**key.as_dict(private=True), "kid": kid, "alg": ALGORITHM, "use": "sig"})
    write_private(folder / f"{kid}.json", body)
    return kid


def _read_key(path: Path) -> ECKey:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Rejected(f"others may read {path}: delete the key, or `chmod 600` it if nobody has")
    try:
        key = ECKey.import_key(json.loads(path.read_text()))
    except (OSError, ValueError, JoseError) as error:
        raise Corrupt(f"{path} is no signing key: delete it or put it back") from error
    if not key.is_private or key.thumbprint() != path.stem:
        raise Corrupt(f"{path} is not the key that its name says: delete it or put it back")
    return key


def _header(token: str) -> dict[str, Any]:
    """The header of a compact token, checked before anything is done with its key id or signature."""
    if len(token) > TOKEN_BYTES_MAX or token.count(".") != 2 or not token.isascii():
        raise ValueError("no compact token of a fitting size")
    text = token.partition(".")[0]
    header = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    if not isinstance(header, dict) or set(header) != _HEADER_FIELDS:
        raise ValueError("header fields other than alg, typ and kid")
    if header["alg"] != ALGORITHM or header["typ"] != "at+jwt":
        raise ValueError("another algorithm, or not an access token")
    if not isinstance(header["kid"], str) or not _KID.match(header["kid"]):
        raise ValueError("no key id of ours")
    return header


def _key_of(header: dict[str, Any], keys: dict[str, ECKey]) -> ECKey:
    found = keys.get(header["kid"])
    if found is None:
        raise ValueError("unknown key id")
    return found


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is missing or no time")
    return value


def _principal(claims: dict[str, Any], now_s: float) -> Principal:
    if claims.get("iss") != ISSUER or claims.get("aud") != AUDIENCE:
        raise ValueError("another issuer or audience")
    expires, issued, begins = _number(claims, "exp"), _number(claims, "iat"), _number(claims, "nbf")
    if not (begins <= now_s + LEEWAY_S and issued <= now_s + LEEWAY_S and now_s < expires <= issued + LIFETIME_S_MAX):
        raise ValueError("expired, or not valid yet")
    tenant, subject, scope, sources = (claims.get(name) for name in ("tenant", "sub", "scope", "sources"))
    if not (isinstance(tenant, str) and tenant and isinstance(subject, str) and isinstance(scope, str)):
        raise ValueError("tenant, sub or scope is missing")
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise ValueError("sources is no list of names")
    return Principal(tenant, subject, frozenset(scope.split()) & SCOPES, tuple(sources), int(expires))
