from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, RSAKey

from cluster.errors import Corrupt, Rejected, Unauthenticated
from serve_apps.tokens import RELOAD_S, TokenAuthority, add_key

NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> TokenAuthority:
    return TokenAuthority.open(tmp_path, clock)


def key_of(authority: TokenAuthority) -> ECKey:
    return authority._keys[authority._signing]


CLAIMS: dict[str, Any] = {
    "iss": "intelgraph",
    "aud": "intelgraph-api",
    "sub": "s",
    "tenant": "t",
    "scope": "read",
    "sources": [],
    "iat": int(NOW),
    "nbf": int(NOW),
    "exp": int(NOW) + 60,
}


def signed(authority: TokenAuthority, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token signed with the right key whose header and claims differ; a claim that is `...` is left out."""
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not ...}
    head = {"alg": "ES256", "typ": "at+jwt", "kid": authority._signing, **(header or {})}
    head = {name: value for name, value in head.items() if value is not ...}
    text, payload = _b64(json.dumps(head)), _b64(json.dumps(body))
    algorithm = jws.JWSRegistry.algorithms["ES256"]
    return f"{text}.{payload}.{_b64(algorithm.sign(f'{text}.{payload}'.encode(), key_of(authority)))}"


def _b64(data: str | bytes) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_what_was_issued_is_verified(authority: TokenAuthority) -> None:
    who = authority.verify(authority.issue("t/ü", ["read", "ingest"], ["feed", "*"], 60, "ana"))
    assert (who.tenant, who.subject, who.scopes, who.sources) == ("t/ü", "ana", {"read", "ingest"}, ("*", "feed"))
    assert who.may_write("anything")
    assert not who.may_write("overlay/pagerank")


def test_the_hand_made_token_is_good_so_that_the_others_fail_for_their_own_reason(authority: TokenAuthority) -> None:
    assert authority.verify(signed(authority)).tenant == "t"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"alg": "ES384"},
        {"alg": ...},
        {"alg": 7},
        {"typ": "JWT"},
        {"typ": ...},
        {"typ": "id+jwt"},
        {"typ": "application/at+jwt "},
        {"crit": ["exp"]},
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"b64": False},
        {"kid": ...},
        {"kid": "../../etc/passwd"},
        {"kid": "' OR 1=1 --"},
        {"kid": "x" * (1 << 20)},
        {"kid": 1},
        {"kid": "A" * 43},
        {"jku": "https://127.0.0.1/keys"},
        {"x5u": "https://127.0.0.1/c"},
        {"jwk": {"kty": "EC"}},
        {"x5c": ["MII"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
    ],
)
def test_headers_that_are_refused(authority: TokenAuthority, header: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        authority.verify(signed(authority, header))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"},
        {"aud": ...},
        {"aud": ["intelgraph-api", "other"]},
        {"iss": "other"},
        {"iss": ...},
        {"exp": ...},
        {"exp": int(NOW) - 1},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": int(NOW) + 10**9},
        {"nbf": int(NOW) + 3600},
        {"nbf": ...},
        {"iat": int(NOW) + 3600},
        {"iat": ...},
        {"exp": float("nan")},
        {"tenant": ...},
        {"tenant": ""},
        {"tenant": 1},
        {"tenant": ["t"]},
        {"scope": ...},
        {"scope": ["read"]},
        {"sub": ...},
        {"sources": ...},
        {"sources": "s"},
        {"sources": [1]},
    ],
)
def test_claims_that_are_refused(authority: TokenAuthority, claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        authority.verify(signed(authority, **claims))


def test_signatures_by_others_are_refused(authority: TokenAuthority) -> None:
    header = {"alg": "ES256", "typ": "at+jwt", "kid": authority._signing}
    with pytest.raises(Unauthenticated):
        authority.verify(jwt.encode(header, CLAIMS, ECKey.generate_key("P-256", auto_kid=False), algorithms=["ES256"]))
    body = f"{_b64(json.dumps({**header, 'alg': 'HS256'}))}.{_b64(json.dumps(CLAIMS))}"
    mac = hmac.new(key_of(authority).as_pem(private=False), body.encode(), hashlib.sha256).digest()
    with pytest.raises(Unauthenticated):  # the public key as an HMAC secret
        authority.verify(f"{body}.{_b64(mac)}")
    rsa = RSAKey.generate_key(2048, auto_kid=False)
    with pytest.raises(Unauthenticated):
        authority.verify(jwt.encode({**header, "alg": "RS256"}, CLAIMS, rsa, algorithms=["RS256"]))
    good = signed(authority)
    for changed in (good[:-4] + "AAAA", good.rpartition(".")[0] + ".", good.rpartition(".")[0]):
        with pytest.raises(Unauthenticated):
            authority.verify(changed)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "é.é.é", "e30.e30.e30", "[].[].[]", "x" * 10_000, "." * 9_000, "W10.e30.AA"]
)
def test_rubbish_is_refused(authority: TokenAuthority, text: str) -> None:
    with pytest.raises(Unauthenticated):
        authority.verify(text)


def test_unknown_scopes_grant_nothing(authority: TokenAuthority) -> None:
    assert authority.verify(signed(authority, scope="read admin root")).scopes == {"read"}


def test_expiry_follows_the_clock(authority: TokenAuthority, clock: Clock) -> None:
    token = authority.issue("t", ["read"], ttl_s=60)
    clock.now += 59
    assert authority.verify(token)
    clock.now += 1
    with pytest.raises(Unauthenticated):
        authority.verify(token)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["admin"]},
        {"ttl_s": 0},
        {"ttl_s": 10**9},
        {"tenant": ""},
        {"sources": ["overlay/x"]},
        {"sources": ["system/x"]},
        {"sources": [f"s{n:05}" for n in range(2000)]},
    ],
)
def test_what_cannot_be_issued(authority: TokenAuthority, wrong: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        authority.issue(**{"tenant": "t", "scopes": ["read"], **wrong})


def test_a_thousand_unknown_keys_cost_one_look(
    authority: TokenAuthority, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    load = authority._load
    monkeypatch.setattr(authority, "_load", lambda: (looks.append(1), load()))
    clock.now += RELOAD_S + 1
    for n in range(1000):
        with pytest.raises(Unauthenticated):
            authority.verify(signed(authority, {"kid": f"{n:043}"}))
    assert looks == [1]


def test_keys_are_rotated_and_removed(authority: TokenAuthority, clock: Clock, tmp_path: Path) -> None:
    old = authority.issue("t", ["read"], ttl_s=3600)
    first = tmp_path / "keys" / f"{authority._signing}.json"
    second = tmp_path / "keys" / f"{add_key(tmp_path / 'keys')}.json"
    os.utime(second, (NOW + 10**9, NOW + 10**9))
    clock.now += RELOAD_S
    assert authority.verify(old)
    new = authority.issue("t", ["read"], ttl_s=3600)
    assert TokenAuthority.open(tmp_path, clock).verify(new)
    first.unlink()
    clock.now += RELOAD_S
    assert authority.verify(new)
    with pytest.raises(Unauthenticated):
        authority.verify(old)


def test_a_clock_set_back_keeps_no_removed_key(authority: TokenAuthority, clock: Clock, tmp_path: Path) -> None:
    old, first = authority.issue("t", ["read"]), tmp_path / "keys" / f"{authority._signing}.json"
    add_key(tmp_path / "keys")
    first.unlink()
    clock.now -= 1
    with pytest.raises(Unauthenticated):
        authority.verify(old)


def test_a_signature_is_checked_once_and_a_forged_one_each_time(
    authority: TokenAuthority, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, check = [], jwt.decode

    def counting(token: str, *rest: Any, **options: Any) -> Any:
        checked.append(token)
        return check(token, *rest, **options)

    monkeypatch.setattr("serve_apps.tokens.jwt.decode", counting)
    good = authority.issue("t", ["read"], ttl_s=3600)
    forged = good[:-8] + ("A" * 8 if not good.endswith("A" * 8) else "B" * 8)
    for _ in range(3):
        assert authority.verify(good).tenant == "t"
        with pytest.raises(Unauthenticated):
            authority.verify(forged)
    assert checked == [good, forged, forged, forged]
    clock.now += RELOAD_S
    assert authority.verify(good)
    assert checked[4:] == [good]


def test_remembered_tokens_are_bounded(authority: TokenAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.tokens.SEEN_MAX", 3)
    for n in range(10):
        assert authority.verify(authority.issue(f"t{n}", ["read"])).tenant == f"t{n}"
        assert len(authority._seen) <= 3


def test_key_files_are_private(authority: TokenAuthority, tmp_path: Path, clock: Clock) -> None:
    (file,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    with pytest.raises(Rejected):
        TokenAuthority.open(tmp_path, clock)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kty":"oct","k":"AAAA"}'])
def test_damaged_keys_are_corrupt(authority: TokenAuthority, tmp_path: Path, clock: Clock, text: str) -> None:
    (file,) = (tmp_path / "keys").iterdir()
    file.write_text(text)
    with pytest.raises(Corrupt):
        TokenAuthority.open(tmp_path, clock)


def test_a_public_key_cannot_sign(authority: TokenAuthority, tmp_path: Path, clock: Clock) -> None:
    (file,) = (tmp_path / "keys").iterdir()
    file.write_text(json.dumps(key_of(authority).as_dict(private=False)))
    with pytest.raises(Corrupt):
        TokenAuthority.open(tmp_path, clock)
