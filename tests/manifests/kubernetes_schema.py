"""Writes `kubernetes.json` anew: the part of the Kubernetes API that the manifests use, as JSON Schema.

    python -m tests.manifests.kubernetes_schema > tests/manifests/kubernetes.json      # with the package `kubernetes`

The official client is made of the API's published OpenAPI document: its models say names, types and what is required.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import Any

KINDS = {"v1.Namespace": "V1Namespace", "v1.Service": "V1Service", "apps.v1.StatefulSet": "V1StatefulSet",
         "apps.v1.Deployment": "V1Deployment", "networking.k8s.io.v1.NetworkPolicy": "V1NetworkPolicy"}  # fmt: skip
_PLAIN = {"str": {"type": "string"}, "int": {"type": "integer"}, "bool": {"type": "boolean"},
          "float": {"type": "number"}, "datetime": {"type": "string"}, "bytes": {"type": "string"},
          "object": {}}  # fmt: skip


def schema() -> dict[str, Any]:
    """All kinds, `group.version.Kind`, with the models that they are made of."""
    client = import_module("kubernetes.client")
    version = import_module("kubernetes").__version__
    found: dict[str, Any] = {}

    def model(name: str) -> dict[str, Any]:
        if name not in found:
            found[name] = {}
            made = getattr(client, name)
            properties = {made.attribute_map[field]: typed(kind) for field, kind in made.openapi_types.items()}
            needed = [made.attribute_map[name] for name, field in made.model_fields.items() if field.is_required()]
            found[name] = {
                "type": "object",
                "properties": properties,
                "additionalProperties": False,
                "required": needed,
            }
        return {"$ref": f"#/definitions/{name}"}

    def typed(kind: str) -> dict[str, Any]:
        if many := re.fullmatch(r"List\[(.*)\]", kind):
            return {"type": "array", "items": typed(many[1])}
        if named := re.fullmatch(r"Dict\[str, (.*)\]", kind):
            return {"type": "object", "additionalProperties": typed(named[1])}
        return dict(_PLAIN[kind]) if kind in _PLAIN else model(kind)

    definitions = {kind: {"allOf": [model(name)], "required": ["apiVersion", "kind", "metadata"]}
                   for kind, name in KINDS.items()}  # fmt: skip
    about = f"made of the models of the official client {version} by kubernetes_schema.py"
    return {"$comment": about, "definitions": {**definitions, **found}}


if __name__ == "__main__":
    print(json.dumps(schema(), sort_keys=True, separators=(",", ":")))
