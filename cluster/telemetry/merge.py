"""One exposition out of many processes' expositions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from cluster.errors import Corrupt

ACTOR_LABEL = "actor"


def merge_expositions(expositions: Mapping[str, bytes]) -> bytes:
    """The metrics of all actors in one text, each sample with the label `actor`, each family declared once.

    Nothing is summed: sums are Prometheus's to make, and a counter that starts anew with its actor stays recognisable.
    Actors and families come sorted, so equal input gives equal bytes.

    Args:
        expositions: by the actor's name, in Prometheus's text format.

    Raises:
        Corrupt: a text cannot be read, or two actors declare one family with different types.
    """
    families: dict[str, Metric] = {}
    for actor in sorted(expositions):
        for family in _parse(actor, expositions[actor]):
            into = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            if into.type != family.type:
                raise Corrupt(f"metric {family.name} is a {family.type} in {actor} and a {into.type} elsewhere")
            into.samples.extend(_labelled(sample, actor) for sample in family.samples)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return [self._families[name] for name in sorted(self._families)]


def _parse(actor: str, text: bytes) -> Iterator[Metric]:
    try:
        yield from text_string_to_metric_families(text.decode())
    except ValueError as error:
        raise Corrupt(f"metrics of {actor} cannot be read: {error}") from error


def _labelled(sample: Sample, actor: str) -> Sample:
    return sample._replace(labels={ACTOR_LABEL: actor, **sample.labels})
