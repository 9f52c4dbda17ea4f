"""The demo: the main job on input that every machine has, its own software. The way of it:

    run.run ─► up ─► material: events of this machine's packages ─► loads ─► applied
            ─► snapshot, verified ─► PageRank and Louvain, written back ─► questions: five, asked of the running API
            ─► the system stays up; addresses, a token, three commands to try

The same machine gives the same events, so running it again finds duplicates only.
"""
