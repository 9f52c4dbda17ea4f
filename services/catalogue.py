"""Every service, by name, each after what it needs."""

from __future__ import annotations

from services import connect, kafka, neo4j, postgres, redis, registry, s3

CATALOGUE = {
    service.name: service
    for module in (postgres, redis, kafka, connect, registry, neo4j, s3)
    for service in module.SERVICES
}

LOCKED = {
    "kafka": kafka.COORDINATES,
    "connect": (*connect.COORDINATES, *connect.LOGGING),
    "debezium": connect.DEBEZIUM,
    "avro": connect.AVRO,
    "neo4j": neo4j.COORDINATES,
    "registry": (registry.COORDINATE,),
}
"""Locks under services/locks, and what each is of."""
