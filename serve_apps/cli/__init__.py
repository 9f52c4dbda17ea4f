"""The command line `intelgraph`. The way of a command:

    main.app ─► verb(app, "name") in `verbs`: adds --json, --state-dir, --config, turns errors into exit codes
             ─► a module of verbs: lifecycle, ingest, sources, dead_letters, snapshots, overlays, query, shards,
                facts (export, hash, audit), lag, access (token), demonstration (demo)
             ─► Session: settings, node, stores, API client, each opened when it is first asked for
             ─► Output: one table for people, or one JSON document for machines

Exit codes: 0 done, 1 refused or found wrong, 2 the command was written wrongly, 3 not up or busy: try again,
4 done, but some records became dead letters, 130 interrupted.

`intelgraph --help` has to answer at once, so heavy modules are imported inside the verbs that need them.
"""
