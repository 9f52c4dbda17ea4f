"""Generations of the log on Redis: how one is opened, in one transaction, and what is kept of it.

    <ns>:generations    hash: generation → {partition: [end, kept, resumed]}
    <ns>:meta           `unfinished` is there from the opening of a generation until it is filled;
                        `partitions:<generation>`: how many it appends to

A stream goes on under the ids of the new generation, `<generation>-<number>`, from the number at which it ends: Redis
refuses ids of an earlier generation from then on, so an appender that does not know of the new one appends nothing.
"""

from __future__ import annotations

from typing import cast

import msgspec
import redis

from cluster.errors import Conflict, Corrupt, Unavailable
from cluster.stores.log import Generation, LogIdentity, Seam
from cluster.stores.redis_errors import command
from cluster.stores.redis_log_setup import WHAT, LogKeys

_BEGIN = """
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[1], 'unfinished') == 1 then return 0 end
for i = 4, #KEYS do
  local begin, last = redis.call('HGET', KEYS[2], tostring(i - 4)), -1
  if begin then
    last = tonumber(begin) + redis.call('XLEN', KEYS[i]) - 1
  elseif redis.call('EXISTS', KEYS[i]) == 0 then
    last = 0
  end
  if last ~= tonumber(ARGV[i + 1]) then return 0 end
end
for i = 4, #KEYS do
  local id = ARGV[2] .. '-' .. ARGV[i + 1]
  redis.call('HSETNX', KEYS[2], tostring(i - 4), '1')
  redis.call('XADD', KEYS[i], id, 'd', '')
  redis.call('XDEL', KEYS[i], id)
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'partitions', ARGV[4], 'partitions:' .. ARGV[2], ARGV[4],
  'unfinished', '1')
return 1
"""


def read(client: redis.Redis, keys: LogKeys) -> tuple[Generation, ...]:
    """The generations after the first, in order. Raises the client's errors.

    Raises:
        Corrupt: what is kept of them is not readable.
    """
    raw = cast(dict[bytes, bytes], client.hgetall(keys.generations))
    meta = cast(dict[bytes, bytes], client.hgetall(keys.meta))
    try:
        found = {int(number): msgspec.json.decode(seams, type=dict[int, Seam]) for number, seams in raw.items()}
        partitions = {number: int(meta.get(b"partitions:%d" % number, 0)) for number in found}
    except (ValueError, msgspec.DecodeError) as error:
        raise Corrupt(f"{WHAT}: {keys.generations} is not readable; restore the log's files") from error
    return tuple(Generation(number, found[number], partitions[number]) for number in sorted(found))


def is_unfinished(client: redis.Redis, keys: LogKeys) -> bool:
    """Whether the newest generation is still being filled. Raises the client's errors."""
    return bool(client.hexists(keys.meta, "unfinished"))


def begin(client: redis.Redis, keys: LogKeys, identity: LogIdentity, new: Generation, timeout_s: float) -> None:
    """See `EventLog.begin_generation`; durable when this returns. Raises the client's errors."""
    streams = [keys.stream(partition) for partition in range(len(new.seams))]
    ends = [new.seams[partition].end for partition in range(len(new.seams))]
    seams = msgspec.json.encode(new.seams).decode()
    script = client.register_script(_BEGIN)
    names = [keys.meta, keys.begins, keys.generations, *streams]
    if not script(keys=names, args=[identity.generation, new.number, seams, new.partitions, *ends]):
        raise Conflict(f"{WHAT} has another generation, or other ends, than a moment ago: look again", 0.1)
    sync(client, timeout_s)


def finish(client: redis.Redis, keys: LogKeys, timeout_s: float) -> None:
    """See `EventLog.finish_generation`; durable when this returns. Raises the client's errors."""
    client.hdel(keys.meta, "unfinished")
    sync(client, timeout_s)


def sync(client: redis.Redis, timeout_s: float) -> None:
    """Wait until the server's disk has everything. Raises Unavailable."""
    if command(client, "WAITAOF", 1, 0, int(timeout_s * 800))[0] < 1:
        raise Unavailable(f"{WHAT} did not confirm that it is on disk in time: say the same again", 1.0)
