"""Questions to the graph as values, and their way through the hot shards.

    validate.entity_query(...)          raw input → typed IR, every bound checked        (ir, validate)
      → cypher.entity(query, epoch)     IR → fixed template and parameters               (cypher)
      → hot.read_entity(read, ...)      templates run on one shard, rows decoded         (hot, decode)
      → fanout.FanOut.one / every       which shard, deadline, retry, breaker, merge     (fanout, merge)

The IR knows nothing of Cypher, so another compiler (over columns of a snapshot) can take the same questions. A read
names the epoch it believes in and the buckets it means; a shard that knows better gives no row: `Fenced`.
"""
