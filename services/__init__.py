"""Real servers for integration tests and trials, without a container engine: installed, started and stopped by name.

    make services                            all of them, in .services/
    python -m services up neo4j kafka        some; `--folder` for a folder of one's own
    python -m services status | down

Each listens on a free loopback port, keeps everything in its own folder and runs until it is stopped:

    <folder>/artifacts/<name>/   what was fetched, of pinned versions, checked against services/locks/
    <folder>/<name>/             data, configuration, server.log, service.json (addresses and secrets, mode 0600)

For trials and tests only: sizes are small, and data goes with the folder.
"""
