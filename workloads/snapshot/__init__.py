"""Snapshots: the lake folded into the form that overlays and cold queries read. The way through:

    create.create_snapshot(lake, folder)          takes one: pin, fold, graph, joined, manifest, pointer
      ├ fold.fold_in_pieces                       previous state + events since → registers, canonical order
      ├ visible.visible_of · pieces.together      registers → what is shown: entities, relationships, claims
      ├ graph.blocks                              dense ids, CSR, CSC, offsets of each tenant's cases
      └ joined.join_cases                         each tenant's things joined over its cases
    read.open_snapshot(folder)                    a reader: holds a manifest, never a directory listing
    verify.verify · diff.diff · export.export_lines · prune.prune

    <folder>/LATEST                                            the pointer; it only advances
    <folder>/<id>/manifest.json                                written last
    <folder>/<id>/state/<dataset>-<hash>.parquet               registers, floors, priorities: of all tenants
    <folder>/<id>/tenants/<digest>/<dataset>-<hash>.parquet    the graph of one tenant

`layout` names the datasets and their columns, `parts` writes them, `digest` hashes their rows. Work is divided by
ranges of buckets: a case lies whole in one, so both ends of a relationship are always at hand. The order of
vertices is tenant, bucket, case, type, id: that of the ranges, so that each writes its own block.
"""
