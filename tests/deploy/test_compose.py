import copy
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).parents[2] / "compose.yaml"
SECRETS = {
    "MINIO_ROOT_USER",
    "MINIO_ROOT_PASSWORD",
    "MILVUS_ROOT_PASSWORD",
    "REDIS_PASSWORD",
    "RABBITMQ_USER",
    "RABBITMQ_PASSWORD",
}
SECRET_NAME = re.compile(r"PASS|SECRET|AUTH$|ACCESS_KEY|_USER$|TOKEN")
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?([^}]+)\}")
PINNED = re.compile(r"[a-z0-9./-]+:(?=.*\d)(?!latest$)[A-Za-z0-9_.-]+")

Compose = dict[str, Any]


def matches_schema(path: Path) -> subprocess.CompletedProcess[str]:
    # The schema ships inside check-jsonschema, so no network is needed.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def secrets_with_a_value(compose: Compose) -> list[str]:
    found = [text for text in strings(compose) if re.search(r"\$\{?[A-Z_]+:?[-+=]", text)]
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAME.search(name) and not REQUIRED.fullmatch(str(value)):
                found.append(name)
        found += [
            text
            for text in strings(service.get("command", []))
            if re.search(r"requirepass(?! \"\$\$\w+\"$)", text, re.M)
        ]
    return found


def ports_open_to_others(compose: Compose) -> list[str]:
    ports = [str(port) for service in compose["services"].values() for port in service.get("ports", [])]
    return [port for port in ports if not port.startswith("127.0.0.1:")]


def services_without_health_check(compose: Compose) -> list[str]:
    return [name for name, service in compose["services"].items() if not service.get("healthcheck", {}).get("test")]


def images_not_pinned(compose: Compose) -> list[str]:
    images = [service.get("image", "") for service in compose["services"].values()]
    return [image for image in images if not PINNED.fullmatch(image)]


def mounts_outside_named_volumes(compose: Compose) -> list[str]:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
    return [str(mount) for mount in mounts if str(mount).partition(":")[0] not in compose["volumes"]]


def dependencies_not_awaited(compose: Compose) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        needed = service.get("depends_on", {})
        found += [f"{name}: {other}" for other in needed if needed[other].get("condition") != "service_healthy"]
    return found


RULES: list[Callable[[Compose], list[str]]] = [
    secrets_with_a_value,
    ports_open_to_others,
    services_without_health_check,
    images_not_pinned,
    mounts_outside_named_volumes,
    dependencies_not_awaited,
]
# Where a broken copy differs, what stands there, and the rule that objects.
BREAKS: list[tuple[tuple[str, ...], Any, Callable[[Compose], list[str]]]] = [
    (("rabbitmq", "environment", "RABBITMQ_DEFAULT_PASS"), "guest", secrets_with_a_value),
    (("minio", "environment", "MINIO_ROOT_PASSWORD"), "${MINIO_ROOT_PASSWORD:-minioadmin}", secrets_with_a_value),
    (("minio", "environment", "MINIO_ROOT_USER"), "${MINIO_ROOT_USER}", secrets_with_a_value),
    (("redis", "command"), ["redis-server", "--requirepass", "hunter2"], secrets_with_a_value),
    (("redis", "ports"), ["6379:6379"], ports_open_to_others),
    (("standalone", "ports"), ["0.0.0.0:19530:19530"], ports_open_to_others),
    (("standalone", "ports"), [{"target": 19530, "published": "19530"}], ports_open_to_others),
    (("etcd", "healthcheck"), {}, services_without_health_check),
    (("redis", "image"), "redis:latest", images_not_pinned),
    (("redis", "image"), "redis", images_not_pinned),
    (("rabbitmq", "image"), "rabbitmq:management", images_not_pinned),
    (("redis", "volumes"), ["./data:/data"], mounts_outside_named_volumes),
    (("redis", "volumes"), ["/srv/redis:/data"], mounts_outside_named_volumes),
    (("redis", "volumes"), ["undeclared:/data"], mounts_outside_named_volumes),
    (("standalone", "depends_on", "etcd"), {"condition": "service_started"}, dependencies_not_awaited),
]


@pytest.fixture
def compose() -> Compose:
    loaded: Compose = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def test_compose_file_follows_the_compose_specification() -> None:
    result = matches_schema(COMPOSE)

    assert result.returncode == 0, result.stdout + result.stderr


def test_schema_refuses_a_broken_compose_file(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text(encoding="utf-8").replace("healthcheck:", "health_check:"), encoding="utf-8")

    result = matches_schema(broken)

    assert result.returncode == 1
    assert "health_check" in result.stdout


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_compose_file_breaks_no_rule(compose: Compose, rule: Callable[[Compose], list[str]]) -> None:
    assert rule(compose) == []


@pytest.mark.parametrize(
    ("place", "value", "rule"), BREAKS, ids=[f"{'.'.join(place)}={value}" for place, value, _ in BREAKS]
)
def test_a_broken_copy_breaks_its_rule(
    compose: Compose, place: tuple[str, ...], value: Any, rule: Callable[[Compose], list[str]]
) -> None:
    broken = copy.deepcopy(compose)
    *path, last = place
    node = broken["services"]
    for step in path:
        node = node[step]
    node[last] = value

    assert rule(broken) != []


def test_every_secret_is_required_and_its_absence_explained_in_korean(compose: Compose) -> None:
    asked = [match for text in strings(compose) for match in REQUIRED.findall(text)]

    assert {name for name, _ in asked} == SECRETS
    assert [message for _, message in asked if not re.search(r"\.env.*[가-힣]", message)] == []


def test_only_milvus_redis_and_rabbitmq_are_published(compose: Compose) -> None:
    published = {name for name, service in compose["services"].items() if service.get("ports")}

    assert published == {"standalone", "redis", "rabbitmq"}


def test_etcd_and_minio_are_reachable_only_from_inside(compose: Compose) -> None:
    networks = {name: compose["services"][name]["networks"] for name in ("etcd", "minio")}

    assert networks == {"etcd": ["storage"], "minio": ["storage"]}
    assert compose["networks"]["storage"]["internal"] is True


def test_milvus_asks_for_a_password(compose: Compose) -> None:
    assert compose["services"]["standalone"]["environment"]["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"
