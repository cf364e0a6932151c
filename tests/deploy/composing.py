"""compose.yaml as a test reads it: its variables filled in as compose does, and what it says of our own services."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT
from dotenv import dotenv_values

COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
ENV_SCRIPT = ROOT / "deploy" / "env.sh"
IMAGE = "smartstore-chatbot"
# $$, or a ${NAME} whose word holds no other: the innermost is filled in first.
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:[-+?])([^${}]*))?\}")
ESCAPED = "\0"

Compose = dict[str, Any]
Service = dict[str, Any]


class Missing(Exception):
    """Raised where compose would stop: a required variable is not set."""


def loaded(path: Path = COMPOSE) -> Compose:
    """Return the file as it stands."""
    found: Compose = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def resolved(variables: Mapping[str, str]) -> Compose:
    """Return the file with its variables filled in; raises Missing."""
    found: Compose = each_text(loaded(), lambda text: interpolated(text, variables))
    return found


def each_text(node: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of a tree whose texts are changed."""
    if isinstance(node, dict):
        return {name: each_text(value, change) for name, value in node.items()}
    if isinstance(node, list):
        return [each_text(value, change) for value in node]
    return change(node) if isinstance(node, str) else node


def texts(node: Any) -> Iterator[str]:
    """Yield the texts of a tree."""
    if isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with its variables filled in: ${A}, ${A:-else}, ${A:+then}, ${A:?why}, nested ones and $$."""

    def fill(found: re.Match[str]) -> str:
        name, how, word = found.groups()
        if name is None:
            return ESCAPED
        value = variables.get(name, "")
        match how:
            case ":-":
                return value or str(word)
            case ":+":
                return str(word) if value else ""
            case ":?" if not value:
                raise Missing(str(word))
        return value

    while (filled := VARIABLE.sub(fill, text)) != text:
        text = filled
    assert "$" not in text, f"compose would read more out of {text!r}"
    return text.replace(ESCAPED, "$")


def made_env(folder: Path, *lines: str) -> tuple[Path, str]:
    """Return the .env that `make env` makes of one with these lines, or of none, and what it says."""
    script = folder / "deploy" / "env.sh"
    script.parent.mkdir(exist_ok=True)
    shutil.copyfile(ENV_SCRIPT, script)
    path = folder / ".env"
    if lines:
        path.write_text("".join(lines), encoding="utf-8")
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=60, check=True)
    return path, done.stdout + done.stderr


def read(env: Path) -> dict[str, str]:
    """Return the variables of a .env."""
    return {name: value for name, value in dotenv_values(env, encoding="utf-8").items() if value is not None}


def roles(compose: Compose) -> dict[str, Service]:
    """Return the services that run our own image."""
    return {name: of for name, of in compose["services"].items() if of.get("image", "").startswith(f"{IMAGE}:")}


def environment(service: Service, env_file: Path) -> dict[str, str]:
    """Return the environment of a role: the image's, then .env's, then its own."""
    own: dict[str, str] = service["environment"]
    return image_environment() | read(env_file) | own


def image_environment() -> dict[str, str]:
    """Return what the last stage of the Dockerfile sets."""
    last = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").rpartition("\nFROM ")[2]
    sets = " ".join(re.findall(r"^ENV (.+)$", last, re.MULTILINE))
    return {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', sets)}
