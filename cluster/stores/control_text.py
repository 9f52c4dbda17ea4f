"""Texts of the control store: any, also with NUL, which PostgreSQL does not take in a text.

There NUL is kept as \\x01 0 and \\x01 as \\x01 1, so no two texts become one; all others are kept as they are.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator


def escaped(text: str) -> str:
    """As PostgreSQL keeps it."""
    return text.replace("\x01", "\x011").replace("\0", "\x010") if "\0" in text or "\x01" in text else text


def plain(text: str) -> str:
    """What was escaped."""
    return text.replace("\x010", "\0").replace("\x011", "\x01") if "\x01" in text else text


class AnyText(TypeDecorator[str]):
    """A column's type."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """To the database."""
        return escaped(value) if isinstance(value, str) and dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """From the database."""
        return plain(value) if isinstance(value, str) and dialect.name == "postgresql" else value
