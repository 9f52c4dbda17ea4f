"""Hosts for trying a cluster on one machine: network namespaces on a bridge, with an sshd in each.

    make cluster           four hosts, `ray up` with ray-cluster.yaml on them, addresses and what to try
    make cluster-down      `intelgraph down`, `ray down`, and everything away

    operator   where `ray up` runs: a copy of this checkout, the token, the key
    head       Ray's head and IntelGraph's node
    worker-1, worker-2

A host has its own network, processes, name, `/tmp`, `/home` and `/run`; kernel, programs and this checkout's `.venv`
are this machine's. All see one state directory, as they would over NFS. When a host's first process ends, the kernel
ends all others of the host and takes its cable away. Only the bridge has to be removed.

    up  ─►  programs ─► network ─► services ─► hosts ─► ray up ─► wait until every host has joined
"""
