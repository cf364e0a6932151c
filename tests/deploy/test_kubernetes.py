"""The Kubernetes manifests, rendered by kustomize: their schemas, our rules for them, and who may reach whom."""

import copy
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from kustomizing import (
    KUBECTL,
    KUBERNETES,
    VERSIONS,
    Manifest,
    containers,
    objects,
    of_kind,
    rendered,
    schema_errors,
    selects,
    settings_of,
    templates,
    title,
)

from smartstore_indexing.queues import ANSWERS, BATCH, work_queues
from smartstore_indexing.settings import PREFIX, load_settings, variables
from smartstore_indexing.topology import Topology
from smartstore_ui.api.requests import MAX_BODY_BYTES
from smartstore_ui.serving import CLOSE_SECONDS

OVERLAYS = ("dev", "production", "production-with-lora")
ROLES = {
    "api": ["serve", "--only", "api"],
    "chat": ["serve", "--only", "chat"],
    "answer-worker": ["worker", "answer"],
    "index-worker": ["worker", "index"],
}
IMAGE = "smartstore-chatbot"
PINNED = re.compile(r"(?:[a-z0-9.-]+/)*[a-z0-9-]+:(?=.*\d)(?!latest$)[A-Za-z0-9_.-]+")
SECRET_NAME = re.compile(r"PASS|SECRET|_KEY|_USER$|TOKEN|AUTH$|_URL$")
NOT_SECRET = {
    "POSTGRES_USER",
    "SMARTSTORE_VLLM__URL",
}  # a name that the manifests say everywhere; one without a password
EXPANDED = re.compile(r"\$\((\w+)\)")
# Images that write beside their volumes: RabbitMQ its cookie and logs, Milvus its configuration.
WRITE_TO_THEIR_ROOT = {"StatefulSet/rabbitmq/rabbitmq", "StatefulSet/milvus/milvus"}
MAKE_FORBIDDEN_CALLS = {"StatefulSet/milvus"}  # as in compose.yaml
# What an operator makes from a resource of ours: the labels of its pods, and the Secret that it fills.
OPERATED: dict[str, list[dict[str, str]]] = {
    "Milvus/milvus": [
        {"app.kubernetes.io/instance": "milvus", "app.kubernetes.io/name": "milvus"},
        {"app.kubernetes.io/instance": "milvus-etcd", "app.kubernetes.io/name": "etcd"},
    ],
    "RabbitmqCluster/rabbitmq": [
        {"app.kubernetes.io/name": "rabbitmq", "app.kubernetes.io/component": "rabbitmq"},
    ],
    "Redis/smartstore-redis": [{"app": "smartstore-redis"}],
    "Cluster/postgresql": [{"cnpg.io/cluster": "postgresql"}],
}
FILLED = {
    "RabbitmqCluster/rabbitmq": ("rabbitmq-default-user", {"username", "password", "connection_string"}),
    "Cluster/postgresql": ("postgresql-app", {"username", "password"}),
}
OPENED = {"RabbitmqCluster/rabbitmq": {"prometheus"}}  # the ports of its pods that we name
# The hosts that the settings name: a Service of ours, or of an operator.
SERVED = {"milvus-milvus": "Milvus/milvus", "rabbitmq": "RabbitmqCluster/rabbitmq"}
SERVED |= {"smartstore-redis": "Redis/smartstore-redis", "postgresql-rw": "Cluster/postgresql"}
STREAMING = {
    "nginx.ingress.kubernetes.io/proxy-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
    "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600",
    "nginx.ingress.kubernetes.io/proxy-body-size": f"{MAX_BODY_BYTES // 1024}k",
}
FOR_THE_CLUSTER = {"/metrics", "/healthz", "/readyz"}
ABSENT = object()

Manifests = list[Manifest]
Rule = Callable[[Manifests], list[str]]


def is_ours(container: Manifest) -> bool:
    return bool(container["image"].rpartition(":")[0].rpartition("/")[2] == IMAGE)


def pods_that_may_be_root(manifests: Manifests) -> list[str]:
    found = []
    for name, template in templates(manifests):
        context = template["spec"].get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            found.append(name)
    for name, container, _ in containers(manifests):
        if {"runAsNonRoot", "runAsUser"} & container.get("securityContext", {}).keys():
            found.append(name)  # it would win
    return found


def containers_with_privileges(manifests: Manifests) -> list[str]:
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return [
        name
        for name, container, _ in containers(manifests)
        if {**container.get("securityContext", {}), "readOnlyRootFilesystem": True}
        != {**closed, "readOnlyRootFilesystem": True}
    ]


def containers_that_write_to_their_root(manifests: Manifests) -> list[str]:
    return [
        name
        for name, container, _ in containers(manifests)
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True
        and name not in WRITE_TO_THEIR_ROOT
    ]


def pods_with_any_system_call(manifests: Manifests) -> list[str]:
    return [
        name
        for name, template in templates(manifests)
        if template["spec"].get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}
        and name not in MAKE_FORBIDDEN_CALLS
    ]


def pods_that_get_what_they_do_not_need(manifests: Manifests) -> list[str]:
    """Tokens of the cluster; Services' variables, which the program refuses and the stores' images misread."""
    return [
        f"{name}: {field}"
        for name, template in templates(manifests)
        for field in ("automountServiceAccountToken", "enableServiceLinks")
        if template["spec"].get(field) is not False
    ]


def probes_missing(manifests: Manifests) -> list[str]:
    found = []
    for name, container, pod in containers(manifests):
        if container in pod.get("initContainers", []):
            continue
        probes = {kind: container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")}
        found += [f"{name}: {kind}" for kind, probe in probes.items() if not probe]
        if is_ours(container):
            paths = {kind: (probe or {}).get("httpGet", {}).get("path") for kind, probe in probes.items()}
            if paths != {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}:
                found.append(f"{name}: {paths}")
    return found


def starts_cut_short(manifests: Manifests) -> list[str]:
    """A start takes up to a minute on a slow machine; vLLM's first downloads 65 GB."""
    found = []
    for name, container, _ in containers(manifests):
        probe = container.get("startupProbe", {})
        seconds = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
        least = {"vllm": 3600, "smartstore": 120}.get(container["name"], 0)
        if least > seconds:
            found.append(f"{name}: {seconds} s")
    return found


def resources_missing(manifests: Manifests) -> list[str]:
    found = []
    for name, container, _ in containers(manifests):
        resources = container.get("resources", {})
        if {"cpu", "memory"} - resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
            found.append(name)
    return found


def secrets_with_a_value(manifests: Manifests) -> list[str]:
    """A variable that is to be secret comes from a Secret, or is put together from such ones."""
    found = [title(manifest) for manifest in of_kind(manifests, "Secret")]
    named = [pair for config in of_kind(manifests, "ConfigMap") for pair in config["data"].items()]
    nodes = (node for node in objects(manifests) if "name" in node)
    named += [(node["name"], node["value"]) for node in nodes if isinstance(node.get("value"), str)]
    for name, value in named:
        secret = SECRET_NAME.search(name) and name not in NOT_SECRET and not EXPANDED.search(value)
        if secret or re.search(r"://[^/@\s]*:(?!\$\()[^/@\s]+@", value):
            found.append(name)
    for _, container, _ in containers(manifests):
        words = " ".join([*container.get("command", []), *container.get("args", [])])
        found += re.findall(r"requirepass (?!\"\$\w+\"$).*|--(?:api-key|password)\S*.*", words, re.M)
    return found


def images_not_pinned(manifests: Manifests) -> list[str]:
    images = [container["image"] for _, container, _ in containers(manifests)]
    for manifest in manifests:
        if manifest["kind"] not in ("Deployment", "StatefulSet"):
            images += [node[key] for node in objects(manifest) for key in ("image", "imageName") if key in node]
    return [image for image in images if not PINNED.fullmatch(image)]


def selectors_that_match_nothing(manifests: Manifests) -> list[str]:
    pods = [template["metadata"]["labels"] for _, template in templates(manifests)]
    pods += [labels for manifest in manifests for labels in OPERATED.get(title(manifest), [])]
    found = []
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            own = spec["template"]["metadata"]["labels"]
            matched = selects(spec["selector"], own) and sum(selects(spec["selector"], pod) for pod in pods) == 1
            for spread in spec["template"]["spec"].get("topologySpreadConstraints", []):
                matched = matched and selects(spread["labelSelector"], own)
        elif manifest["kind"] == "Service" and "selector" in spec:
            matched = any(selects({"matchLabels": spec["selector"]}, pod) for pod in pods)
        elif manifest["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            matched = any(selects(spec["selector"], pod) for pod in pods)
        elif manifest["kind"] == "NetworkPolicy":
            matched = all(any(selects(wanted, pod) for pod in pods) for wanted in pod_selectors(manifest))
        else:
            continue
        if not matched:
            found.append(title(manifest))
    return found


def pod_selectors(policy: Manifest) -> Iterator[Manifest]:
    """Yield what a NetworkPolicy selects in its own namespace."""
    yield policy["spec"]["podSelector"]
    for peer in objects([policy["spec"].get("ingress", []), policy["spec"].get("egress", [])]):
        if "podSelector" in peer and "namespaceSelector" not in peer:
            yield peer["podSelector"]


def opened(manifests: Manifests, selector: Manifest) -> set[Any]:
    """Return the ports, by name and number, of the pods that a selector picks."""
    ports = {
        port[key]
        for _, template in templates(manifests)
        if selects(selector, template["metadata"]["labels"])
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
        for key in ("name", "containerPort")
    }
    for operated in {title(manifest) for manifest in manifests} & OPENED.keys():
        if any(selects(selector, labels) for labels in OPERATED[operated]):
            ports |= OPENED[operated]
    return ports


def ports_that_nobody_opens(manifests: Manifests) -> list[str]:
    found = []
    for service in of_kind(manifests, "Service"):
        if "selector" in service["spec"]:
            wanted = {port["targetPort"] for port in service["spec"]["ports"]}
            found += [
                f"{title(service)}: {port}"
                for port in wanted - opened(manifests, {"matchLabels": service["spec"]["selector"]})
            ]
    for name, container, _ in containers(manifests):
        own = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            found += [f"{name}: {probe} {port}"] if port and port not in own else []
    for policy in of_kind(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            named = {port["port"] for port in rule.get("ports", []) if isinstance(port["port"], str)}
            found += [f"{title(policy)}: {port}" for port in named - opened(manifests, policy["spec"]["podSelector"])]
    for monitor in of_kind(manifests, "PodMonitor"):
        wanted = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        found += [f"{title(monitor)}: {port}" for port in wanted - opened(manifests, monitor["spec"]["selector"])]
    return found


def doors_to_no_service(manifests: Manifests) -> list[str]:
    services = {manifest["metadata"]["name"]: manifest["spec"] for manifest in of_kind(manifests, "Service")}
    found = []
    for ingress in of_kind(manifests, "Ingress"):
        for backend in (node["service"] for node in objects(ingress["spec"]) if "service" in node):
            ports = {port["name"] for port in services.get(backend["name"], {}).get("ports", [])}
            found += [f"{title(ingress)}: {backend['name']}"] if backend["port"]["name"] not in ports else []
    return found


def deployments_scaled_wrongly(manifests: Manifests) -> list[str]:
    deployments = {manifest["metadata"]["name"]: manifest for manifest in of_kind(manifests, "Deployment")}
    targets = [
        scaler["spec"]["scaleTargetRef"] for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    ]
    names = [target["name"] for target in targets]
    found = [f"{name}: no Deployment" for name in names if name not in deployments]
    found += [f"{name}: two scalers" for name in set(names) if names.count(name) > 1]
    # Each `kubectl apply` would set it back.
    found += [f"{name}: replicas" for name in names if "replicas" in deployments.get(name, {}).get("spec", {})]
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        if budget["metadata"]["name"] not in deployments:
            found.append(title(budget))
    authentications = {found["metadata"]["name"] for found in of_kind(manifests, "TriggerAuthentication")}
    for node in objects(of_kind(manifests, "ScaledObject")):
        if "authenticationRef" in node and node["authenticationRef"]["name"] not in authentications:
            found.append(node["authenticationRef"]["name"])
    return found


def settings_that_the_program_does_not_know(manifests: Manifests) -> list[str]:
    known = variables()
    return [
        f"{name}: {variable}"
        for name, container, _ in containers(manifests)
        if is_ours(container)
        for variable in settings_of(manifests, container)
        if variable.startswith(PREFIX) and variable not in known
    ]


def secret_keys_that_nobody_fills(manifests: Manifests) -> list[str]:
    filled = documented()
    filled |= dict(FILLED[title(manifest)] for manifest in manifests if title(manifest) in FILLED)
    wanted = set()
    for node in objects(manifests):
        if isinstance(reference := node.get("secretKeyRef", node.get("redisSecret")), dict):
            wanted.add((reference["name"], reference["key"]))
        if isinstance(reference := node.get("secretRef"), str):  # Milvus' storage
            wanted |= {(reference, "accesskey"), (reference, "secretkey")}
        for target in node.get("secretTargetRef", []):
            wanted.add((target["name"], target["key"]))
    return [f"{name}/{key}" for name, key in sorted(wanted) if key not in filled.get(name, set())]


def documented() -> dict[str, set[str]]:
    """Return the Secrets, and the keys in each, that secrets.example.yaml asks the operator for."""
    text = (KUBERNETES / "secrets.example.yaml").read_text(encoding="utf-8")
    return {secret["metadata"]["name"]: set(secret["stringData"]) for secret in yaml.safe_load_all(text)}


def queues_that_are_not_ours(manifests: Manifests) -> list[str]:
    prefix = load_settings({}, env_file=None).rabbitmq.prefix
    ours = {Topology(prefix, ()).queue(work) for work in work_queues(1) if work.name in (ANSWERS, BATCH)}
    asked = {
        trigger["metadata"].get("queueName")
        for scaler in of_kind(manifests, "ScaledObject")
        for trigger in scaler["spec"]["triggers"]
    }
    return sorted(map(str, asked ^ ours)) if asked else []


def pods_killed_while_they_drain(manifests: Manifests) -> list[str]:
    found = []
    for name, container, pod in containers(manifests):
        if not is_ours(container) or container in pod.get("initContainers", []):
            continue
        drain = load_settings(settings_of(manifests, container), env_file=None).server.drain_seconds
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        serves = container["args"][0] == "serve"
        if serves and not before:
            found.append(f"{name}: no preStop")
        if pod["terminationGracePeriodSeconds"] < before + drain + (CLOSE_SECONDS if serves else 0) + 10:
            found.append(f"{name}: {pod['terminationGracePeriodSeconds']} s")
    return found


def mounts_that_are_wrong(manifests: Manifests) -> list[str]:
    """Of a volume that is not there; or a folder that the program writes to, and is none."""
    found = []
    for name, container, pod in containers(manifests):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        claims = {
            claim["metadata"]["name"]
            for manifest in manifests
            for claim in manifest.get("spec", {}).get("volumeClaimTemplates", [])
        }
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        found += [f"{name}: {volume}" for volume in mounts.values() if volume not in {*volumes, *claims}]
        if is_ours(container):
            written = {settings_of(manifests, container)["SMARTSTORE_DATA_DIR"], "/tmp"}
            held = {path for path, volume in mounts.items() if "emptyDir" in volumes.get(volume, {})}
            found += [f"{name}: {path}" for path in written - held]
    return found


def doors_that_do_not_stream(manifests: Manifests) -> list[str]:
    found = []
    for ingress in of_kind(manifests, "Ingress"):
        annotations, spec = ingress["metadata"].get("annotations", {}), ingress["spec"]
        found += [f"{title(ingress)}: {key}" for key, value in STREAMING.items() if annotations.get(key) != value]
        secured = {host for tls in spec.get("tls", []) for host in tls["hosts"]}
        found += [f"{title(ingress)}: {rule['host']}" for rule in spec["rules"] if rule["host"] not in secured]
        backends = {node["service"]["name"] for node in objects(spec) if "service" in node}
        if "chat" in backends and annotations.get("nginx.ingress.kubernetes.io/affinity") != "cookie":
            found.append(f"{title(ingress)}: affinity")
    return found


def doors_to_what_is_for_the_cluster(manifests: Manifests) -> list[str]:
    selecting = {
        service["metadata"]["name"] for service in of_kind(manifests, "Service") if "selector" in service["spec"]
    }
    found = []
    for ingress in of_kind(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            paths = {path["path"]: path for path in rule["http"]["paths"]}
            shut = {path for path, to in paths.items() if to["backend"]["service"]["name"] not in selecting}
            led = {path for path in paths if path == "/" or path in FOR_THE_CLUSTER} - shut
            if led and FOR_THE_CLUSTER - shut:
                found.append(f"{rule['host']}: {sorted(FOR_THE_CLUSTER - shut)}")
    return found


def pods_that_are_open_by_default(manifests: Manifests) -> list[str]:
    shut = [
        policy["spec"]["podSelector"]
        for policy in of_kind(manifests, "NetworkPolicy")
        if set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not {"ingress", "egress"} & policy["spec"].keys()
    ]
    return [
        name
        for name, template in templates(manifests)
        if not any(selects(one, template["metadata"]["labels"]) for one in shut)
    ]


def ways_to_a_private_network(manifests: Manifests) -> list[str]:
    private = {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
    return [
        title(policy)
        for policy in of_kind(manifests, "NetworkPolicy")
        for block in (node["ipBlock"] for node in objects(policy) if "ipBlock" in node)
        if block["cidr"] == "0.0.0.0/0" and private - set(block.get("except", []))
    ]


def what_stands_in_no_namespace(manifests: Manifests) -> list[str]:
    (own,) = (manifest["metadata"]["name"] for manifest in of_kind(manifests, "Namespace"))
    return [
        title(manifest)
        for manifest in manifests
        if manifest["kind"] != "Namespace" and manifest["metadata"].get("namespace") != own
    ]


def hosts_that_nobody_answers(manifests: Manifests) -> list[str]:
    services = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "Service")}
    made = {title(manifest) for manifest in manifests}
    found = []
    for name, container, _ in containers(manifests):
        for value in settings_of(manifests, container).values() if is_ours(container) else ():
            for host in re.findall(r"^\w+://(?:[^@/]*@)?([\w.-]+)", value):
                outside = "." in host  # another namespace's
                if not outside and host not in services and SERVED.get(host) not in made:
                    found.append(f"{name}: {host}")
    return found


RULES: list[Rule] = [
    pods_that_may_be_root,
    containers_with_privileges,
    containers_that_write_to_their_root,
    pods_with_any_system_call,
    pods_that_get_what_they_do_not_need,
    probes_missing,
    starts_cut_short,
    resources_missing,
    secrets_with_a_value,
    images_not_pinned,
    selectors_that_match_nothing,
    ports_that_nobody_opens,
    doors_to_no_service,
    deployments_scaled_wrongly,
    settings_that_the_program_does_not_know,
    secret_keys_that_nobody_fills,
    queues_that_are_not_ours,
    pods_killed_while_they_drain,
    mounts_that_are_wrong,
    doors_that_do_not_stream,
    doors_to_what_is_for_the_cluster,
    pods_that_are_open_by_default,
    ways_to_a_private_network,
    what_stands_in_no_namespace,
    hosts_that_nobody_answers,
]
POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
NGINX = "metadata.annotations.nginx~ingress~kubernetes~io/"
# Which manifest differs in a broken copy of production, where, what stands there, and the rule that objects.
BREAKS: list[tuple[str, str, Any, Rule]] = [
    ("Deployment/api", f"{POD}.securityContext.runAsNonRoot", False, pods_that_may_be_root),
    ("Deployment/api", f"{POD}.securityContext.runAsUser", 0, pods_that_may_be_root),
    ("Deployment/vllm", f"{POD}.securityContext", ABSENT, pods_that_may_be_root),
    ("Deployment/api", f"{CONTAINER}.securityContext.runAsUser", 0, pods_that_may_be_root),
    ("Deployment/api", f"{CONTAINER}.securityContext.capabilities.drop", ["NET_RAW"], containers_with_privileges),
    ("Deployment/api", f"{CONTAINER}.securityContext.capabilities.add", ["SYS_ADMIN"], containers_with_privileges),
    ("Deployment/api", f"{CONTAINER}.securityContext.privileged", True, containers_with_privileges),
    ("Deployment/index-worker", f"{POD}.initContainers.0.securityContext", ABSENT, containers_with_privileges),
    (
        "Deployment/chat",
        f"{CONTAINER}.securityContext.readOnlyRootFilesystem",
        False,
        containers_that_write_to_their_root,
    ),
    ("Deployment/chat", f"{POD}.securityContext.seccompProfile.type", "Unconfined", pods_with_any_system_call),
    ("Deployment/chat", f"{POD}.automountServiceAccountToken", ABSENT, pods_that_get_what_they_do_not_need),
    ("Deployment/chat", f"{POD}.enableServiceLinks", True, pods_that_get_what_they_do_not_need),
    ("Deployment/api", f"{CONTAINER}.readinessProbe.httpGet.path", "/healthz", probes_missing),
    ("Deployment/api", f"{CONTAINER}.livenessProbe.httpGet.path", "/readyz", probes_missing),
    ("Deployment/answer-worker", f"{CONTAINER}.startupProbe", ABSENT, probes_missing),
    ("Deployment/vllm", f"{CONTAINER}.readinessProbe", ABSENT, probes_missing),
    ("Deployment/api", f"{CONTAINER}.startupProbe.failureThreshold", 10, starts_cut_short),
    ("Deployment/vllm", f"{CONTAINER}.startupProbe.failureThreshold", 20, starts_cut_short),
    ("Deployment/api", f"{CONTAINER}.resources.limits", ABSENT, resources_missing),
    ("Deployment/api", f"{CONTAINER}.resources.requests.cpu", ABSENT, resources_missing),
    ("ConfigMap/settings", "data.SMARTSTORE_CHAT__SECRET", "hunter2", secrets_with_a_value),
    ("ConfigMap/settings", "data.SMARTSTORE_REDIS__URL", "redis://:hunter2@redis:6379/0", secrets_with_a_value),
    ("Deployment/chat", f"{CONTAINER}.env.0", {"name": "POSTGRES_PASSWORD", "value": "x"}, secrets_with_a_value),
    ("Deployment/vllm", f"{CONTAINER}.args.0", "--api-key=hunter2", secrets_with_a_value),
    (
        "Milvus/milvus",
        "spec.components.env.0",
        {"name": "MINIO_SECRET_KEY", "value": "minioadmin"},
        secrets_with_a_value,
    ),
    ("Service/api", "kind", "Secret", secrets_with_a_value),
    (
        "Deployment/api",
        f"{CONTAINER}.image",
        "registry.smartstore.example/smartstore-chatbot:latest",
        images_not_pinned,
    ),
    ("Deployment/api", f"{CONTAINER}.image", "smartstore-chatbot", images_not_pinned),
    ("RabbitmqCluster/rabbitmq", "spec.image", "rabbitmq:management", images_not_pinned),
    ("Redis/smartstore-redis", "spec.kubernetesConfig.image", "quay.io/opstree/redis:latest", images_not_pinned),
    ("Cluster/postgresql", "spec.imageName", "ghcr.io/cloudnative-pg/postgresql", images_not_pinned),
    ("Deployment/api", "spec.selector.matchLabels", {"app": "api"}, selectors_that_match_nothing),
    (
        "Deployment/api",
        "spec.selector.matchLabels",
        {"app.kubernetes.io/name": "smartstore"},
        selectors_that_match_nothing,
    ),
    ("Service/api", "spec.selector", {"app": "api"}, selectors_that_match_nothing),
    ("PodDisruptionBudget/api", "spec.selector.matchLabels", {"app": "api"}, selectors_that_match_nothing),
    ("PodMonitor/smartstore", "spec.selector.matchLabels", {"app": "api"}, selectors_that_match_nothing),
    ("NetworkPolicy/doors", "spec.podSelector", {"matchLabels": {"app": "api"}}, selectors_that_match_nothing),
    ("NetworkPolicy/rabbitmq", "spec.podSelector", {"matchLabels": {"app": "rabbit"}}, selectors_that_match_nothing),
    (
        "NetworkPolicy/redis",
        "spec.ingress.0.from.0.podSelector",
        {"matchLabels": {"a": "b"}},
        selectors_that_match_nothing,
    ),
    ("Service/api", "spec.ports.0.targetPort", "https", ports_that_nobody_opens),
    ("Deployment/api", f"{CONTAINER}.ports.0.name", "web", ports_that_nobody_opens),
    ("Deployment/api", f"{CONTAINER}.livenessProbe.httpGet.port", "web", ports_that_nobody_opens),
    ("NetworkPolicy/doors", "spec.ingress.0.ports.0.port", "web", ports_that_nobody_opens),
    ("PodMonitor/smartstore", "spec.podMetricsEndpoints.0.port", "metrics", ports_that_nobody_opens),
    ("PodMonitor/rabbitmq", "spec.podMetricsEndpoints.1.port", "management", ports_that_nobody_opens),
    ("Ingress/chat", "spec.rules.0.http.paths.0.backend.service.name", "page", doors_to_no_service),
    ("HorizontalPodAutoscaler/api", "spec.scaleTargetRef.name", "web", deployments_scaled_wrongly),
    ("ScaledObject/answer-worker", "spec.scaleTargetRef.name", "api", deployments_scaled_wrongly),
    ("ScaledObject/answer-worker", "spec.triggers.0.authenticationRef.name", "rabbit", deployments_scaled_wrongly),
    ("Deployment/answer-worker", "spec.replicas", 1, deployments_scaled_wrongly),
    ("PodDisruptionBudget/api", "metadata.name", "web", deployments_scaled_wrongly),
    ("ConfigMap/settings", "data.SMARTSTORE_MILVUS__URL", "x", settings_that_the_program_does_not_know),
    ("Deployment/api", f"{CONTAINER}.env.0.name", "SMARTSTORE_ANSWER", settings_that_the_program_does_not_know),
    ("Deployment/vllm", f"{CONTAINER}.env.0.valueFrom.secretKeyRef.key", "VLLM_API_KEY", secret_keys_that_nobody_fills),
    ("Redis/smartstore-redis", "spec.kubernetesConfig.redisSecret.key", "password", secret_keys_that_nobody_fills),
    ("Milvus/milvus", "spec.dependencies.storage.secretRef", "s3", secret_keys_that_nobody_fills),
    ("TriggerAuthentication/rabbitmq", "spec.secretTargetRef.0.key", "url", secret_keys_that_nobody_fills),
    ("RabbitmqCluster/rabbitmq", "metadata.name", "rabbit", secret_keys_that_nobody_fills),
    ("ScaledObject/answer-worker", "spec.triggers.0.metadata.queueName", "answers", queues_that_are_not_ours),
    ("ScaledObject/answer-worker", "spec.triggers.1", ABSENT, queues_that_are_not_ours),
    ("Deployment/api", f"{POD}.terminationGracePeriodSeconds", 30, pods_killed_while_they_drain),
    ("Deployment/index-worker", f"{POD}.terminationGracePeriodSeconds", 20, pods_killed_while_they_drain),
    ("Deployment/chat", f"{CONTAINER}.lifecycle", ABSENT, pods_killed_while_they_drain),
    ("ConfigMap/settings", "data.SMARTSTORE_SERVER__DRAIN_SECONDS", "60", pods_killed_while_they_drain),
    ("Deployment/api", f"{CONTAINER}.volumeMounts.0.mountPath", "/var/data", mounts_that_are_wrong),
    ("Deployment/api", f"{POD}.volumes.0.name", "other", mounts_that_are_wrong),
    ("ConfigMap/settings", "data.SMARTSTORE_DATA_DIR", "/srv", mounts_that_are_wrong),
    ("Ingress/api", f"{NGINX}proxy-buffering", "on", doors_that_do_not_stream),
    ("Ingress/api", f"{NGINX}proxy-body-size", "1m", doors_that_do_not_stream),
    ("Ingress/chat", f"{NGINX}proxy-read-timeout", ABSENT, doors_that_do_not_stream),
    ("Ingress/chat", f"{NGINX}affinity", ABSENT, doors_that_do_not_stream),
    ("Ingress/chat", "spec.tls", ABSENT, doors_that_do_not_stream),
    ("Ingress/chat", "spec.rules.0.http.paths.1", ABSENT, doors_to_what_is_for_the_cluster),
    ("Ingress/chat", "spec.rules.0.http.paths.1.backend.service.name", "chat", doors_to_what_is_for_the_cluster),
    ("Ingress/api", "spec.rules.0.http.paths.0.path", "/", doors_to_what_is_for_the_cluster),
    ("Ingress/api", "spec.rules.0.http.paths.0.path", "/metrics", doors_to_what_is_for_the_cluster),
    ("NetworkPolicy/nothing-by-default", "spec.policyTypes", ["Ingress"], pods_that_are_open_by_default),
    ("NetworkPolicy/nothing-by-default", "spec.egress", [{}], pods_that_are_open_by_default),
    ("Deployment/vllm", "spec.template.metadata.labels", {"a": "b"}, pods_that_are_open_by_default),
    ("NetworkPolicy/every-role", "spec.egress.1.to.0.ipBlock.except", ["10.0.0.0/8"], ways_to_a_private_network),
    ("NetworkPolicy/vllm", "spec.egress.0.to.0.ipBlock.except", ABSENT, ways_to_a_private_network),
    ("Service/api", "metadata.namespace", ABSENT, what_stands_in_no_namespace),
    ("ConfigMap/settings", "data.SMARTSTORE_MILVUS__URI", "http://standalone:19530", hosts_that_nobody_answers),
    ("Redis/smartstore-redis", "metadata.name", "cache", hosts_that_nobody_answers),
    ("Service/vllm", "metadata.name", "model", hosts_that_nobody_answers),
]
# Each resource of an operator with a value that its schema refuses.
REFUSED: list[tuple[str, str, Any]] = [
    ("Deployment/api", f"{POD}.container", []),
    ("Deployment/api", f"{CONTAINER}.ports.0.containerPort", "http"),
    ("NetworkPolicy/doors", "spec.ingres", []),
    ("HorizontalPodAutoscaler/api", "spec.maxReplicas", ABSENT),
    ("Ingress/api", "apiVersion", "networking.k8s.io/v1beta1"),
    ("ScaledObject/answer-worker", "spec.triggers.0.metadata", ABSENT),
    ("ScaledObject/answer-worker", "spec.minReplicas", 1),
    ("ScaledObject/answer-worker", "spec.fallback.replicas", "4"),
    ("TriggerAuthentication/rabbitmq", "spec.secretTargetRef.0.secret", "x"),
    ("PodMonitor/smartstore", "spec.podMetricsEndpoints.0.intervall", "15s"),
    ("Cluster/postgresql", "spec.instances", ABSENT),
    ("Cluster/postgresql", "spec.bootstrap.initdb.db", "x"),
    ("RabbitmqCluster/rabbitmq", "spec.persistence.size", "10Gi"),
    ("RabbitmqCluster/rabbitmq", "spec.affinity.podAntiAffinity", []),
    ("Redis/smartstore-redis", "spec.clusterSize", 3),
    ("Redis/smartstore-redis", "spec.kubernetesConfig.image", ABSENT),
    ("Redis/smartstore-redis", "spec.storage.volumeClaimTemplate.spec.accessModes", "ReadWriteOnce"),
    ("Milvus/milvus", "spec.mode", "distributed"),
    ("Milvus/milvus", "spec.components.queryNodes", {}),
    ("Milvus/milvus", "spec.components.env.0.valueFrom.secretRef", {}),
]


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifests]:
    """Return what each overlay renders to; the components that production leaves out by default are one more."""
    folder = tmp_path_factory.mktemp("kubernetes") / "overlay"
    folder.mkdir()
    up = Path(*[".."] * (len(folder.parts) - 1), *KUBERNETES.parts[1:])  # kustomize takes no absolute path
    whole = {"resources": [str(up / "overlays" / "production")], "components": [str(up / "components" / "lora")]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    rest = {"production-with-lora": rendered(folder)}
    return {name: rendered(KUBERNETES / "overlays" / name) for name in ("dev", "production")} | rest


def changed(manifests: Manifests, which: str, place: str, value: Any) -> Manifests:
    """Return a copy in which one manifest has another value at a place, or nothing there."""
    kind, _, name = which.partition("/")
    broken = copy.deepcopy(manifests)
    node: Any
    (node,) = (
        manifest
        for manifest in broken
        if manifest["kind"] == kind and re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", manifest["metadata"]["name"])
    )
    *path, last = (int(step) if step.isdigit() else step.replace("~", ".") for step in place.split("."))
    for step in path:
        node = node[step]
    if value is ABSENT:
        del node[last]
    else:
        node[last] = value
    return broken


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_follows_its_schema(overlays: dict[str, Manifests], overlay: str, version: str) -> None:
    wrong = {title(manifest): schema_errors(manifest, version) for manifest in overlays[overlay]}

    assert len(wrong) > 20
    assert {name: errors for name, errors in wrong.items() if errors} == {}


@pytest.mark.parametrize(("which", "place", "value"), REFUSED, ids=[f"{which}.{place}" for which, place, _ in REFUSED])
def test_schema_refuses_a_broken_manifest(overlays: dict[str, Manifests], which: str, place: str, value: Any) -> None:
    whole = overlays["production"]
    (broken,) = (new for new, old in zip(changed(whole, which, place, value), whole, strict=True) if new != old)

    assert schema_errors(broken, VERSIONS[-1]) != []


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_overlay_breaks_no_rule(overlays: dict[str, Manifests], overlay: str, rule: Rule) -> None:
    assert rule(overlays[overlay]) == []


@pytest.mark.parametrize(
    ("which", "place", "value", "rule"),
    BREAKS,
    ids=[f"{which}.{place}={'absent' if value is ABSENT else value}" for which, place, value, _ in BREAKS],
)
def test_a_broken_copy_breaks_its_rule(
    overlays: dict[str, Manifests], which: str, place: str, value: Any, rule: Rule
) -> None:
    assert rule(changed(overlays["production"], which, place, value)) != []


def test_every_rule_is_broken_by_some_copy() -> None:
    assert {rule.__name__ for *_, rule in BREAKS} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_role_has_its_deployment_and_the_program_takes_its_settings(
    overlays: dict[str, Manifests], overlay: str
) -> None:
    manifests = overlays[overlay]
    found = {}
    for name, container, _ in containers(manifests):
        if is_ours(container):
            settings = load_settings(settings_of(manifests, container), env_file=None)
            found[name.split("/")[1], container["name"]] = (container["args"], settings)

    assert {
        role: arguments for (role, container), (arguments, _) in found.items() if container == "smartstore"
    } == ROLES
    assert found["index-worker", "request-index"][0] == ["reindex"]
    for role in ("api", "chat"):
        assert found[role, "smartstore"][1].answers == "queue"
    chat = found["chat", "smartstore"][1].chat
    assert len(chat.secret.get_secret_value()) >= 32
    assert chat.history_url.get_secret_value().startswith("postgresql://smartstore:")
    for _, settings in found.values():
        assert not settings.milvus_is_embedded
        assert settings.rabbitmq.url.get_secret_value()
        ports = {settings.server.port, settings.worker.port}
        assert ports == {8000}
        assert {settings.server.host, settings.worker.host} == {"0.0.0.0"}


def test_vllm_serves_the_model_and_the_adapter_that_the_settings_ask_for(overlays: dict[str, Manifests]) -> None:
    manifests = overlays["production-with-lora"]
    by_name = {
        container["name"]: container for name, container, _ in containers(manifests) if "/index-worker/" not in name
    }
    vllm = load_settings(settings_of(manifests, by_name["smartstore"]), env_file=None).vllm
    model, *options = by_name["vllm"]["args"]
    script = (ROOT / "deploy" / "finetune" / "serve.sh").read_text(encoding="utf-8")

    assert model == vllm.model
    assert f"${{MODEL:-{model}}}" in script
    assert f"--max-model-len={vllm.context_window}" in options
    assert f"--max-model-len {vllm.context_window}" in script
    assert f"--lora-modules={vllm.adapters}=/models/adapters/{vllm.adapters}" in options
    assert f"${{NAME:-{vllm.adapters}}}=" in script
    rank = tomllib.loads((ROOT / "deploy" / "finetune" / "lora.toml").read_text(encoding="utf-8"))["lora"]["r"]
    assert f"--max-lora-rank={rank}" in options


def test_prometheus_tells_the_roles_apart_by_the_names_that_the_alerts_use(overlays: dict[str, Manifests]) -> None:
    rules = (ROOT / "deploy" / "observability" / "prometheus" / "rules.yaml").read_text(encoding="utf-8")
    named = {job for jobs in re.findall(r'job=~?"([^"]+)"', rules) for job in jobs.split("|")}
    (monitor,) = (found for found in overlays["production"] if title(found) == "PodMonitor/smartstore")
    jobs = {
        template["metadata"]["labels"].get(monitor["spec"]["jobLabel"])
        for _, template in templates(overlays["production"])
        if selects(monitor["spec"]["selector"], template["metadata"]["labels"])
    }

    assert jobs == ROLES.keys()
    assert named <= jobs


def test_command_of_the_readme_makes_a_resource_of_the_alerts() -> None:
    text = (KUBERNETES / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^```bash rules\n(.*?)^```$", text, re.M | re.S)
    made, _, applied = command.partition(" | ")
    assert applied.startswith("kubectl ")

    result = subprocess.run(
        ["bash", "-c", made], cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, check=True, capture_output=True, timeout=60
    )

    manifest = yaml.safe_load(result.stdout)
    assert title(manifest) == "PrometheusRule/smartstore"
    assert schema_errors(manifest, VERSIONS[-1]) == []
    assert sum(len(group["rules"]) for group in manifest["spec"]["groups"]) > 3
    manifest["spec"]["groups"][0]["rules"][0]["labels"] = "critical"
    assert schema_errors(manifest, VERSIONS[-1]) != []


def test_example_of_an_overlay_in_the_readme_is_taken(tmp_path: Path) -> None:
    text = (KUBERNETES / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```yaml kustomization\n(.*?)^```$", text, re.M | re.S)
    assert examples
    for number, example in enumerate(examples):
        folder = tmp_path / str(number)
        folder.mkdir()
        up = Path(*[".."] * (len(folder.parts) - 1), *KUBERNETES.parts[1:])
        own = example.replace("deploy/kubernetes", str(up))
        assert own != example
        (folder / "kustomization.yaml").write_text(own, encoding="utf-8")

        manifests = rendered(folder)

        assert [error for manifest in manifests for error in schema_errors(manifest, VERSIONS[-1])] == []
        assert {name.__name__: name(manifests) for name in RULES if name(manifests)} == {}
        (worker,) = (each for name, each, _ in containers(manifests) if name == "Deployment/index-worker/smartstore")
        settings = load_settings(settings_of(manifests, worker), env_file=None)
        assert str(settings.faq.parent) in {mount["mountPath"] for mount in worker["volumeMounts"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_image_has_the_version_of_the_program(overlays: dict[str, Manifests], overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tags = {
        container["image"].rpartition(":")[2] for _, container, _ in containers(overlays[overlay]) if is_ours(container)
    }

    assert tags == {version}


def test_stores_have_the_images_of_the_compose_file(overlays: dict[str, Manifests]) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    pinned = {service["image"] for service in compose.values()} - {compose["api"]["image"]}
    of_dev = {container["image"] for _, container, _ in containers(overlays["dev"]) if not is_ours(container)}
    production = {title(manifest): manifest["spec"] for manifest in overlays["production"] if "spec" in manifest}

    assert of_dev <= pinned
    assert production["Milvus/milvus"]["components"]["image"] in of_dev
    assert production["RabbitmqCluster/rabbitmq"]["image"] in of_dev
    assert production["Deployment/vllm"]["template"]["spec"]["containers"][0]["image"] in pinned


def test_example_of_the_secrets_holds_no_value_and_is_rendered_nowhere(overlays: dict[str, Manifests]) -> None:
    secrets = list(yaml.safe_load_all((KUBERNETES / "secrets.example.yaml").read_text(encoding="utf-8")))
    used = {
        (node["secretKeyRef"]["name"], node["secretKeyRef"]["key"])
        for manifests in overlays.values()
        for node in objects(manifests)
        if "secretKeyRef" in node
    }

    assert [secret["kind"] for secret in secrets] == ["Secret", "Secret"]
    assert {value for secret in secrets for value in secret["stringData"].values()} == {""}
    assert {key for key in documented()["smartstore"] if ("smartstore", key) not in used} == set()


def test_make_env_writes_the_secret_that_dev_asks_for(overlays: dict[str, Manifests], tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "env.sh", tmp_path / "deploy")
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "deploy/env.sh"], cwd=tmp_path, env=home, check=True, capture_output=True, timeout=60)

    # As in README.md, but for nobody: the client alone makes it.
    command = [
        str(KUBECTL),
        "create",
        "secret",
        "generic",
        "smartstore",
        "--from-env-file=.env",
        "--dry-run=client",
        "-oyaml",
    ]
    made = subprocess.run(command, cwd=tmp_path, env=home, check=True, capture_output=True, text=True, timeout=60)
    filled = {name for name, value in yaml.safe_load(made.stdout)["data"].items() if value}

    asked = [node["secretKeyRef"] for node in objects(overlays["dev"]) if "secretKeyRef" in node]
    assert {reference["key"] for reference in asked if not reference.get("optional")} <= filled
    assert {reference["name"] for reference in asked} == {"smartstore"}


def test_production_needs_an_operator_for_all_that_dev_runs_itself(overlays: dict[str, Manifests]) -> None:
    assert of_kind(overlays["production"], "StatefulSet") == []
    assert {title(manifest) for manifest in overlays["production"]} >= OPERATED.keys()
    builtin = ("apps/v1", "v1", "networking.k8s.io/v1", "policy/v1")
    assert [title(manifest) for manifest in overlays["dev"] if manifest["apiVersion"] not in builtin] == []


# Who calls whom in dev, by the component or the name of the pod, and the port.
MODEL, DOORMAN, PROMETHEUS, OTLP = "Internet", "ingress-nginx", "monitoring", "monitoring"
WAYS = {
    *((role, "milvus", 19530) for role in ROLES),
    *((role, "rabbitmq", 5672) for role in ROLES),
    *((role, "redis", 6379) for role in ("api", "chat", "answer-worker")),
    ("chat", "postgresql", 5432),
    ("milvus", "etcd", 2379),
    ("milvus", "minio", 9000),
    *((role, MODEL, 443) for role in ROLES),
    *((role, OTLP, 4318) for role in ROLES),
    *((PROMETHEUS, role, 8000) for role in ROLES),
    *((DOORMAN, role, 8000) for role in ("api", "chat")),
}


def test_dev_lets_each_pod_go_where_it_needs_and_nowhere_else(overlays: dict[str, Manifests]) -> None:
    manifests = overlays["dev"]
    pods = {name.partition("/")[2]: template for name, template in templates(manifests)}
    outside = {MODEL, DOORMAN, PROMETHEUS}
    ports = {port for _, _, port in WAYS} | {9091, 15672, 53, 80, 22}
    open_ways = {
        (source, target, port)
        for source in [*pods, *outside]
        for target in [*pods, *outside]
        for port in ports
        if source != target
        and not {source, target} <= outside
        and (source in outside or leaves(manifests, pods, source, target, port))
        and (target in outside or enters(manifests, pods, source, target, port))
    }

    assert open_ways == WAYS


def leaves(manifests: Manifests, pods: Manifest, source: str, target: str, port: int) -> bool:
    return _allowed(manifests, pods, here=source, there=target, port=port, direction="egress", opener=target)


def enters(manifests: Manifests, pods: Manifest, source: str, target: str, port: int) -> bool:
    return _allowed(manifests, pods, here=target, there=source, port=port, direction="ingress", opener=target)


def _allowed(
    manifests: Manifests, pods: Manifest, *, here: str, there: str, port: int, direction: str, opener: str
) -> bool:
    """Tell what NetworkPolicy says: of those that select a pod, one must allow it, and without any all is allowed."""
    selecting = [
        policy["spec"]
        for policy in of_kind(manifests, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], pods[here]["metadata"]["labels"])
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    names = {
        opened["name"]: opened["containerPort"]
        for container in (pods[opener]["spec"]["containers"] if opener in pods else ())
        for opened in container["ports"]
    }
    return not selecting or any(
        _is_peer(peer, pods, there) and port in {names.get(each["port"], each["port"]) for each in rule["ports"]}
        for spec in selecting
        for rule in spec.get(direction, [])
        for peer in rule["to" if direction == "egress" else "from"]
    )


def _is_peer(peer: Manifest, pods: Manifest, name: str) -> bool:
    if "ipBlock" in peer:
        return name == MODEL
    if "namespaceSelector" in peer:
        return bool(peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": name})
    return name in pods and selects(peer["podSelector"], pods[name]["metadata"]["labels"])
