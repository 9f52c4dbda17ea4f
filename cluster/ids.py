"""Keys and buckets: which thing a record is about, which of the 4,096 buckets holds it, and its store keys.

A thing is (tenant, case, type, id). Stores index it under texts of a fixed width and alphabet, because an
index of a graph database may trim blanks, split at control characters or refuse long texts: the case's digest
(16 characters), then the digest of (type, id) (20 characters). Digests are BLAKE2b over UTF-8 in which the first part
has its length before it, so nobody can write a tenant, case, type or id that reads as another's.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence
from functools import lru_cache

BUCKETS = 4096
CASE_TAG_BITS = 40
_CASE_BYTES = 12
_THING_BYTES = 15
_THING_CHARS = _THING_BYTES // 3 * 4  # no padding: digests joined are their texts joined


def _digest(first: str, second: str, size: int) -> bytes:
    return hashlib.blake2b(f"{len(first)}:{first}{second}".encode(), digest_size=size).digest()


def _text(digest: bytes) -> str:
    return binascii.b2a_base64(digest, newline=False).decode().replace("+", "-").replace("/", "_")


@lru_cache(maxsize=65536)
def bucket_of(tenant: str, case: str) -> int:
    """The bucket of a case: the first 8 bytes of its digest, mod 4,096. It never changes."""
    return int.from_bytes(_digest(tenant, case, 8), "big") % BUCKETS


@lru_cache(maxsize=65536)
def case_key(tenant: str, case: str) -> str:
    """16 characters that begin every store key of a case."""
    return _text(_digest(tenant, case, _CASE_BYTES))


@lru_cache(maxsize=65536)
def case_tag(tenant: str, case: str) -> int:
    """An integer below 2^52 for numeric indexes: bucket × 2^40 + 40 bits of the case's digest.

    All things of a bucket are one range of tags. Two cases of a bucket may share a tag (1 in 2^40): who selects
    by tag compares the case key too.
    """
    low = int.from_bytes(_digest(case, tenant, 5), "big")
    return (bucket_of(tenant, case) << CASE_TAG_BITS) | low


@lru_cache(maxsize=1 << 18)
def thing_key(type: str, id: str) -> str:
    """20 characters for (type, id) within a case."""
    return _text(_digest(type, id, _THING_BYTES))


def thing_keys(types: Sequence[str], ids: Sequence[str]) -> list[str]:
    """`thing_key` of many at once, without remembering them."""
    digest = hashlib.blake2b
    texts = [f"{len(type)}:{type}{id}" for type, id in zip(types, ids, strict=True)]
    joined = _text(b"".join([digest(text.encode(), digest_size=_THING_BYTES).digest() for text in texts]))
    return [joined[at : at + _THING_CHARS] for at in range(0, len(joined), _THING_CHARS)]


def store_key(tenant: str, case: str, type: str, id: str) -> str:
    """The 36 characters under which a store keeps a thing."""
    return case_key(tenant, case) + thing_key(type, id)


def void_key(tenant: str, case: str) -> str:
    """Store key of a case's void: where a relationship hangs whose ends are not known (a delete came first).

    No record can have this key: a type is never empty.
    """
    return case_key(tenant, case) + thing_key("", "void")
