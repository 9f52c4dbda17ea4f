"""What everything shares; imports nothing above it.

The way of a fact through this package:

    model.Event            what a source says, checked            (model, values, ids)
      → versions.encode    where it stands in its source's order  (versions)
      → batch.encode       columns that travel through the log    (batch, Arrow IPC)
      → fold.fold          one register per source, newest wins   (fold: the oracle, pure)
      → stores.graph       the same rule, in a graph database     (dialect, stores.shard)

`shard_map` says which shard owns a bucket, `routing` where a read may go. `stores` holds everything with a
client library: graph, log, lake, control, cache. `embedded` runs the default servers. `errors` is the one tree
of errors, `config` every limit.
"""
