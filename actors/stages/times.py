"""Times of events: RFC 3339 in, the same instant in UTC out."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache

from cluster.errors import BadRecord

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(\.\d{1,9})?(?:[Zz]|([+-])(\d\d):(\d\d))", flags=re.ASCII)


@lru_cache(maxsize=8192)
def utc_text(text: str) -> str:
    """`2026-01-31T23:59:59.5+01:00` as `2026-01-31T22:59:59.5Z`: the fraction stays as it is written.

    A leap second is written as the second before it, since few readers know of them.

    Raises:
        BadRecord: it is no time of RFC 3339 with at most nine digits of a second.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise BadRecord("schema", f"event_time {text[:80]!r}: write it as 2026-01-31T23:59:59.5Z or with +01:00")
    date, hour_minute, second, fraction, sign, hours, minutes = found.groups()
    try:
        at = datetime.fromisoformat(f"{date}T{hour_minute}{'59' if second == '60' else second}")
        if sign is not None:
            if int(hours) > 23 or int(minutes) > 59:
                raise ValueError("offset is out of range")
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            at = at - offset if sign == "+" else at + offset
        if second == "60" and (at.hour, at.minute) != (23, 59):
            raise ValueError("a leap second ends a day in UTC")
    except (ValueError, OverflowError) as error:
        raise BadRecord("schema", f"event_time {text!r}: {error}") from error
    return f"{at.isoformat()}{fraction or ''}Z"
