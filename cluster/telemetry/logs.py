"""Structured logs: one event a line, as JSON for machines and as short text on a terminal.

    log = Log(__name__).bind(tenant="acme", shard="shard-0")
    log.info("batch_applied", rows=1000)

The event is a fixed name; what varies goes into fields. Any stdlib logger goes the same way: its `extra` are fields.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from cluster.telemetry.logfile import is_behind, open_to_append
from cluster.telemetry.redaction import redact, redact_text

NODE_LOG = "node.log"
"""In the state directory: where the node and its actors say what happens."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "fields"}
_RESERVED = ("time", "level", "event", "logger", "error")
_TEXT_CHARS_MAX = 8_000
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}


@dataclass(frozen=True, slots=True)
class Log:
    """A logger with fields that go on every line. Cheap to make; safe to share between threads."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def bind(self, **fields: Any) -> Log:
        """The same logger with more fields."""
        return replace(self, fields={**self.fields, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        """For whoever looks for a fault in the program."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A thing that happened as it should."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """A thing that the system deals with itself."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, error: BaseException | None = None, **fields: Any) -> None:
        """A thing that somebody has to look at; `error` comes with its traceback."""
        self._write(logging.ERROR, event, fields, error)

    def _write(self, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None = None) -> None:
        logger = logging.getLogger(self.name)
        if logger.isEnabledFor(level):
            logger.log(level, event, extra={"fields": {**self.fields, **fields}}, exc_info=error, stacklevel=3)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, event, logger, then the fields.

    Args:
        fields: that every line has, unless it says otherwise.
    """

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self._every = fields

    def format(self, record: logging.LogRecord) -> str:
        """Never raises on odd values, never holds a line break."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": _event(record),
            "logger": record.name,
        }
        for name, value in {**self._every, **_fields(record)}.items():
            line[f"{name}_" if name in _RESERVED else name] = _finite(redact(value, name))
        if (error := _error(self, record)) is not None:
            line["error"] = error
        return json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class TerminalFormatter(logging.Formatter):
    """`12:30:01 warning event  field=value …`, with colour only where it is asked for."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Control characters of events and fields are escaped: what is logged cannot drive the terminal."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        pairs = "  ".join(f"{name}={_shown(redact(value, name))}" for name, value in _fields(record).items())
        text = f"{clock} {record.levelname.lower():<8} {_printable(_event(record))}  {pairs}".rstrip()
        if (error := _error(self, record)) is not None:
            text += "\n" + "\n".join(_printable(line) for line in error.splitlines())
        before = _COLOURS.get(record.levelname) if self._colour else None
        return f"{before}{text}\x1b[0m" if before else text


def configure(level: str = "INFO", stream: TextIO | None = None, as_json: bool | None = None) -> None:
    """Sends all logs of this process to one stream; replaces what was there. Safe to call again.

    Args:
        stream: stderr by default.
        as_json: by default only where the stream is no terminal.
    """
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        TerminalFormatter(terminal) if as_json is False or (as_json is None and terminal) else JsonFormatter()
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


class _Appender(logging.Handler):
    """Lines at the end of a file that other processes write to: each in one call, so that none is torn. When the file
    is set aside, the next line begins the new one.
    """

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter(**fields))
        self._path, self._descriptor = path, open_to_append(path)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not is_behind(self._path, self._descriptor):
                descriptor, self._descriptor = self._descriptor, open_to_append(self._path)
                os.close(descriptor)
            os.write(self._descriptor, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except OSError:  # such as a full disk: what the process does matters more
            self.handleError(record)

    def close(self) -> None:
        super().close()
        os.close(self._descriptor)


def append_to(path: Path, level: str = "INFO", **fields: Any) -> None:
    """Sends all logs of this process to the end of a file, as JSON, besides wherever else they go.

    For processes whose output goes elsewhere, such as Ray's actors. Safe to call again: the last one counts.

    Args:
        fields: that every line has: which process it is.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Appender)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(_Appender(path, fields))
    root.setLevel(level)


def _event(record: logging.LogRecord) -> str:
    return redact_text(record.getMessage())[:_TEXT_CHARS_MAX]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD and name[:5] != "_ray_"}
    return own | dict(getattr(record, "fields", {}))


def _error(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    if not record.exc_info:
        return None
    return redact_text(formatter.formatException(record.exc_info))[-_TEXT_CHARS_MAX:]


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value[:_TEXT_CHARS_MAX] if isinstance(value, str) else value


def _shown(value: Any) -> str:
    return _printable(value if isinstance(value, str) else json.dumps(_finite(value), ensure_ascii=False))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
