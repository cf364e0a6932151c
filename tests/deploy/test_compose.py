import copy
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from composing import COMPOSE, Compose, Missing, environment, loaded, made_env, read, resolved, roles, texts
from conftest import ROOT

from smartstore_indexing.settings import load_settings

SECRETS = {
    "MINIO_ROOT_USER",
    "MINIO_ROOT_PASSWORD",
    "MILVUS_ROOT_PASSWORD",
    "REDIS_PASSWORD",
    "RABBITMQ_USER",
    "RABBITMQ_PASSWORD",
    "POSTGRES_PASSWORD",
    "GRAFANA_ADMIN_PASSWORD",
    "SMARTSTORE_CHAT__SECRET",
    "SMARTSTORE_SERVER__API_KEYS",
    "SMARTSTORE_VLLM__API_KEY",
}
SECRET_NAME = re.compile(r"PASS|SECRET|AUTH$|(ACCESS|API)_KEYS?|(ROOT|DEFAULT)_USER$|TOKEN")
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?([^}]+)\}")
DEFAULTED = re.compile(r"\$\{?([A-Z_]+)(?:\}|:?[-+=]([^}]*))")
PASSWORD_IN_URL = re.compile(r"://[^/\s@]*:(?!\$\{[A-Z_]+:\?)[^/\s@]*@")
PINNED = re.compile(r"[a-z0-9./-]+:(?=.*\d)(?!latest$)[A-Za-z0-9_.-]+")
CONDITIONS = {"service_healthy", "service_completed_successfully"}
ONCE = {"first-index"}  # ends when its work is done
NO_SHELL = {"collector", "tempo"}  # whose images hold nothing that could check them
# What the user opens, and on which port of this machine.
PUBLISHED = {"api": 8000, "chat": 7860, "attu": 8001, "rabbitmq": 15672, "grafana": 3000}
PROFILES = {"observability": {"prometheus", "grafana", "collector", "tempo"}, "vllm": {"vllm"}}
DRAIN_AND_CLOSE_SECONDS = 20 + 5


def matches_schema(path: Path) -> subprocess.CompletedProcess[str]:
    # The schema ships inside check-jsonschema, so no network is needed.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def secrets_with_a_value(compose: Compose) -> list[str]:
    found = []
    for text in texts(compose):
        found += [
            name for name, value in DEFAULTED.findall(text) if name in SECRETS or (SECRET_NAME.search(name) and value)
        ]
        found += PASSWORD_IN_URL.findall(text)
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAME.search(name) and not REQUIRED.search(value) and value not in ("", f"${{{name}:-}}", "true"):
                found.append(name)
        found += [
            text for text in texts(service.get("command", [])) if re.search(r"requirepass(?! \"\$\$\w+\"$)", text, re.M)
        ]
    return found


def ports_open_to_others(compose: Compose) -> list[str]:
    ports = [str(port) for service in compose["services"].values() for port in service.get("ports", [])]
    return [port for port in ports if not port.startswith("127.0.0.1:")]


def services_without_health_check(compose: Compose) -> list[str]:
    return [
        name
        for name, service in compose["services"].items()
        if name not in ONCE | NO_SHELL and not service.get("healthcheck", {}).get("test")
    ]


def images_not_pinned(compose: Compose) -> list[str]:
    images = [service.get("image", "") for service in compose["services"].values()]
    return [image for image in images if not PINNED.fullmatch(image)]


def mounts_that_write_elsewhere(compose: Compose) -> list[str]:
    """Return the mounts that are neither a named volume nor read-only."""
    found = []
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            if isinstance(mount, dict):
                named, read_only = mount["type"] == "volume", mount.get("read_only") is True
            else:
                source, _, options = str(mount).partition(":")
                named, read_only = source in compose["volumes"], options.endswith(":ro")
            if not (named or read_only):
                found.append(str(mount))
    return found


def dependencies_not_awaited(compose: Compose) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        needed = service.get("depends_on", {})
        found += [f"{name}: {other}" for other in needed if needed[other].get("condition") not in CONDITIONS]
    return found


def services_that_stay_down(compose: Compose) -> list[str]:
    wanted = {name: "no" if name in ONCE else "unless-stopped" for name in compose["services"]}
    return [name for name, service in compose["services"].items() if service.get("restart") != wanted[name]]


def roles_that_may_too_much(compose: Compose) -> list[str]:
    found = []
    for name, role in roles(compose).items():
        safe = (
            role.get("read_only") is True
            and role.get("cap_drop") == ["ALL"]
            and role.get("security_opt") == ["no-new-privileges:true"]
            and not {"privileged", "user", "cap_add", "devices", "pid"} & role.keys()
            and {mount.partition(":")[0] for mount in role.get("tmpfs", [])} == {"/tmp", "/data"}
        )
        if not safe:
            found.append(name)
    return found


def roles_that_are_cut_off(compose: Compose) -> list[str]:
    found = []
    for name, role in roles(compose).items():
        grace = int(role.get("stop_grace_period", "10s").removesuffix("s"))
        if grace <= DRAIN_AND_CLOSE_SECONDS or not role.get("init"):
            found.append(name)
    return found


RULES: list[Callable[[Compose], list[str]]] = [
    secrets_with_a_value,
    ports_open_to_others,
    services_without_health_check,
    images_not_pinned,
    mounts_that_write_elsewhere,
    dependencies_not_awaited,
    services_that_stay_down,
    roles_that_may_too_much,
    roles_that_are_cut_off,
]
# Where a broken copy differs, what stands there, and the rule that objects.
BREAKS: list[tuple[tuple[str, ...], Any, Callable[[Compose], list[str]]]] = [
    (("rabbitmq", "environment", "RABBITMQ_DEFAULT_PASS"), "guest", secrets_with_a_value),
    (("minio", "environment", "MINIO_ROOT_PASSWORD"), "${MINIO_ROOT_PASSWORD:-minioadmin}", secrets_with_a_value),
    (("minio", "environment", "MINIO_ROOT_USER"), "${MINIO_ROOT_USER}", secrets_with_a_value),
    (("redis", "command"), ["redis-server", "--requirepass", "hunter2"], secrets_with_a_value),
    (("api", "environment", "SMARTSTORE_REDIS__URL"), "redis://:hunter2@redis:6379/0", secrets_with_a_value),
    (("api", "environment", "SMARTSTORE_MILVUS__TOKEN"), "root:Milvus", secrets_with_a_value),
    (("vllm", "environment", "HF_TOKEN"), "${HF_TOKEN:-hf_abc}", secrets_with_a_value),
    (("api", "ports"), ["8000:8000"], ports_open_to_others),
    (("standalone", "ports"), ["0.0.0.0:19530:19530"], ports_open_to_others),
    (("standalone", "ports"), [{"target": 19530, "published": "19530"}], ports_open_to_others),
    (("etcd", "healthcheck"), {}, services_without_health_check),
    (("api", "healthcheck"), {"disable": True}, services_without_health_check),
    (("redis", "image"), "redis:latest", images_not_pinned),
    (("redis", "image"), "redis", images_not_pinned),
    (("rabbitmq", "image"), "rabbitmq:management", images_not_pinned),
    (("redis", "volumes"), ["./data:/data"], mounts_that_write_elsewhere),
    (("redis", "volumes"), ["/srv/redis:/data"], mounts_that_write_elsewhere),
    (("redis", "volumes"), ["undeclared:/data"], mounts_that_write_elsewhere),
    (("redis", "volumes"), [{"type": "bind", "source": ".", "target": "/x"}], mounts_that_write_elsewhere),
    (("standalone", "depends_on", "etcd"), {"condition": "service_started"}, dependencies_not_awaited),
    (("api", "restart"), "no", services_that_stay_down),
    (("first-index", "restart"), "always", services_that_stay_down),
    (("chat", "read_only"), False, roles_that_may_too_much),
    (("chat", "cap_drop"), [], roles_that_may_too_much),
    (("api", "user"), "root", roles_that_may_too_much),
    (("api", "tmpfs"), ["/tmp"], roles_that_may_too_much),
    (("api", "stop_grace_period"), "20s", roles_that_are_cut_off),
    (("answer-worker", "init"), False, roles_that_are_cut_off),
]


@pytest.fixture
def compose() -> Compose:
    return loaded()


def made(folder: Path, *lines: str) -> Path:
    """Return the .env that `make env` makes of one with these lines, or of none."""
    path, told = made_env(folder, *lines)
    values = read(path)
    assert re.search("[가-힣]", told)
    assert [name for name in SECRETS if not name.endswith("_USER") and values[name] in told] == []
    return path


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
    asked = [match for text in texts(compose) for match in REQUIRED.findall(text)]

    assert {name for name, _ in asked} == SECRETS
    assert [message for _, message in asked if not re.search(r"\.env.*[가-힣].*make env", message)] == []
    with pytest.raises(Missing, match="make env"):
        resolved({})


def test_only_what_a_user_opens_is_published(compose: Compose) -> None:
    published = {
        name: int(service["ports"][0].split(":")[1])
        for name, service in compose["services"].items()
        if service.get("ports")
    }

    assert published == PUBLISHED


def test_stores_are_reachable_only_from_inside(compose: Compose) -> None:
    inside = {name for name, network in compose["networks"].items() if network["internal"] is True}
    networks = {name: set(service["networks"]) for name, service in compose["services"].items()}
    closed = {name for name, of in networks.items() if of <= inside}

    assert closed == {"etcd", "minio", "standalone", "redis", "postgres", "prometheus", "collector", "tempo"}
    assert {name for name, of in networks.items() if "storage" in of} == {"etcd", "minio", "standalone"}


def test_milvus_asks_for_a_password(compose: Compose) -> None:
    assert compose["services"]["standalone"]["environment"]["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"


def test_what_no_profile_asks_for_is_the_chatbot_and_its_stores(compose: Compose) -> None:
    services = compose["services"]
    by_profile = {
        profile: {name for name, service in services.items() if profile in service.get("profiles", [])}
        for profile in PROFILES
    }

    assert by_profile == PROFILES
    always = services.keys() - set().union(*PROFILES.values())
    assert {other for name in always for other in services[name].get("depends_on", {})} <= always


def test_doors_and_answers_wait_for_the_first_index(compose: Compose) -> None:
    waiting = {
        name
        for name, service in compose["services"].items()
        if service.get("depends_on", {}).get("first-index", {}).get("condition") == "service_completed_successfully"
    }

    assert waiting == {"api", "chat", "answer-worker"}


def test_roles_have_their_commands(compose: Compose) -> None:
    assert {name: role["command"] for name, role in roles(compose).items()} == {
        "api": ["serve", "--only", "api"],
        "chat": ["serve", "--only", "chat"],
        "answer-worker": ["worker", "answer"],
        "index-worker": ["worker", "index"],
        "first-index": ["reindex", "--watch"],
    }


def test_configuration_that_is_mounted_is_there(compose: Compose) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
    sources = [mount.partition(":")[0] for mount in mounts if isinstance(mount, str) and mount.startswith("./")]

    assert len(sources) == 5
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize(
    ("faq", "source", "target"),
    [
        (None, "./indexing/smartstore_indexing/sample/faq.jsonl", "/faq/faq.jsonl"),
        ("내-faq.csv", "내-faq.csv", "/faq/내-faq.csv"),
        ("/srv/faq.pkl", "/srv/faq.pkl", "/faq//srv/faq.pkl"),
    ],
    ids=["sample", "relative", "absolute"],
)
def test_faq_is_mounted_where_the_worker_looks_for_it(
    tmp_path: Path, faq: str | None, source: str, target: str
) -> None:
    env = made(tmp_path, *([f"FAQ={faq}\n"] if faq else []))
    worker = resolved(read(env))["services"]["index-worker"]

    (mount,) = worker["volumes"]
    assert (mount["source"], mount["target"], mount["read_only"]) == (source, target, True)
    assert worker["environment"]["SMARTSTORE_FAQ"] == target
    assert Path(target).is_relative_to(worker["environment"]["SMARTSTORE_INDEX__FOLDERS"])


def test_every_role_reads_its_settings(tmp_path: Path) -> None:
    env = made(tmp_path, "OPENAI_API_KEY=sk-of-the-user\nSMARTSTORE_REDIS__URL=redis://elsewhere:6379/0\n")
    values = read(env)
    for role in roles(resolved(values)).values():
        settings = load_settings(environment(role, env), env_file=None)

        assert settings.answers == "queue"
        assert settings.default_model == "openai"
        assert settings.redis.url.get_secret_value() == f"redis://:{values['REDIS_PASSWORD']}@redis:6379/0"
        assert settings.chat.secret.get_secret_value() == values["SMARTSTORE_CHAT__SECRET"]
        assert settings.server.keys == {values["SMARTSTORE_SERVER__API_KEYS"]}


def test_roles_do_not_get_the_passwords_of_others(tmp_path: Path) -> None:
    env = made(tmp_path, "HF_TOKEN=hf_of_the_user\n")
    values = read(env)
    others = {values[name] for name in ("MINIO_ROOT_PASSWORD", "GRAFANA_ADMIN_PASSWORD", "HF_TOKEN")}
    for role in roles(resolved(values)).values():
        assert others & set(environment(role, env).values()) == set()


def test_vllm_is_started_as_the_finetuning_script_starts_it(tmp_path: Path) -> None:
    script = (ROOT / "deploy" / "finetune" / "serve.sh").read_text(encoding="utf-8")
    lines = "VLLM_QUANTIZATION=fp8\nVLLM_LORA=smartstore-faq=/adapters/mine\nVLLM_GPUS=2\n"
    plain, tuned = (
        shlex.split(resolved(read(made(tmp_path, text)))["services"]["vllm"]["command"]) for text in ("# 없음\n", lines)
    )

    assert plain[:3] == ["Qwen/Qwen3-32B", "--max-model-len", "32768"]
    assert not {"--enable-lora", "--quantization"} & set(plain)
    options = set(re.findall(r"(?<=\s)--[a-z-]+(?=\s)", script.rpartition("exec vllm")[2]))
    assert options == {"--enable-lora", "--lora-modules", "--max-lora-rank", "--max-model-len", "--host", "--port"}
    assert options <= set(tuned)
    assert tuned[tuned.index("--quantization") + 1] == "fp8"
    assert tuned[tuned.index("--lora-modules") + 1] == "smartstore-faq=/adapters/mine"
    assert tuned[tuned.index("--tensor-parallel-size") + 1] == "2"


def test_make_env_makes_what_compose_asks_for(tmp_path: Path) -> None:
    env = made(tmp_path)

    assert env.stat().st_mode & 0o777 == 0o600
    values = read(env)
    assert values.keys() == SECRETS
    passwords = [value for name, value in values.items() if not name.endswith("_USER")]
    assert len(set(passwords)) == len(passwords)
    assert min(map(len, passwords)) >= 32
    env.unlink()
    assert set(passwords) & set(read(made(tmp_path)).values()) == set()


def test_make_env_keeps_what_is_there(tmp_path: Path) -> None:
    lines = [
        "# 내 설정\n",
        "REDIS_PASSWORD=mine # 왜\n",
        'export POSTGRES_PASSWORD="with space"\n',
        "RABBITMQ_PASSWORD=\n",
        'MINIO_ROOT_PASSWORD="" # 나중에\n',
        "#GRAFANA_ADMIN_PASSWORD=commented\n",
        "OPENAI_API_KEY=sk-without-an-end",
    ]
    env = made(tmp_path, *lines)

    text, values = env.read_text(encoding="utf-8"), read(env)
    assert values.keys() == SECRETS | {"OPENAI_API_KEY"}
    assert (values["REDIS_PASSWORD"], values["POSTGRES_PASSWORD"]) == ("mine", "with space")
    assert values["OPENAI_API_KEY"] == "sk-without-an-end"
    assert [name for name in SECRETS if not values[name]] == []
    assert [line for line in (lines[0], lines[1], lines[2], lines[5]) if line not in text] == []
    assert env.stat().st_mode & 0o777 == 0o600
    made(tmp_path)
    assert env.read_text(encoding="utf-8") == text


def test_make_env_leaves_no_other_file(tmp_path: Path) -> None:
    made(tmp_path, "# nothing\n")

    assert {path.name for path in tmp_path.iterdir()} == {".env", "deploy"}
