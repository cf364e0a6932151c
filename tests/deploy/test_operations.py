"""docs/operations.md speaks of what is there: alerts, commands, settings, metrics, services, files."""

import contextlib
import io
import re
import shlex
from collections.abc import Callable, Iterator

import pytest
import yaml
from composing import loaded
from conftest import ROOT
from test_observability import exercised, labels_of, rules

from smartstore_indexing.queues import work_queues
from smartstore_indexing.settings import variables
from smartstore_indexing.topology import Topology
from smartstore_ui.commands import parser

DOCUMENT = ROOT / "docs" / "operations.md"
PART = re.compile(r"[|;<>]|&&")
FILES = re.compile(r"(?<![\w/.-])((?:deploy|docs|tests|ui|indexing|workflows)/[\w./-]+\.\w+)")


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def blocks(document: str) -> list[str]:
    return re.findall(r"^```bash\n((?:.*\n)*?)```$", document, re.MULTILINE)


def commands(document: str) -> list[list[str]]:
    """Return every command of the blocks in words, without what it is piped into or written to."""
    found = []
    for line in "".join(blocks(document)).splitlines():
        with contextlib.suppress(ValueError):  # a line of a script that goes on in the next one
            words = shlex.split(line)
            end = next((place for place, word in enumerate(words) if PART.match(word)), len(words))
            found.append(words[:end])
    return found


def of_ours(document: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of `smartstore`, which is a namespace and a user too."""
    for words in commands(document):
        for place, word in enumerate(words):
            before = words[place - 1] if place else ""
            if word.rpartition("/")[2] == "smartstore" and (before == "--" or not before.startswith("-")):
                yield words[place + 1 :]


def not_understood(document: str) -> list[list[str]]:
    found = []
    for arguments in of_ours(document):
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                parser().parse_args(arguments)
        except SystemExit:
            found.append(arguments)
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def targets_missing(document: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z-]+)", document)) - targets()


def settings_missing(document: str) -> set[str]:
    return set(re.findall(r"SMARTSTORE_[A-Z_]+", document)) - variables().keys()


def metrics_missing(document: str) -> set[str]:
    return set(re.findall(r"\b(?:smartstore|process)_[a-z_]+", document)) - families()


def families() -> set[str]:
    """Return the names of what is shown, a histogram's without its parts too."""
    shown = set(labels_of(exercised()))
    return shown | {name.removesuffix("_bucket") for name in shown}


def services_missing(document: str) -> set[str]:
    """Return what `docker compose` is told to work on and compose.yaml does not have."""
    named = set()
    for words in commands(document):
        if words[:2] != ["docker", "compose"]:
            continue
        plain = [word for word in words[3:] if not re.match(r"-|\d+m$|\w+-?\w*=\d", word)]
        if "--entrypoint" in words:
            plain.remove(words[words.index("--entrypoint") + 1])
        named |= set(plain[:1] if words[2] in ("exec", "run") else plain)
    return named - loaded()["services"].keys()


def headings(document: str) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#{1,6} (.+)$", re.sub(r"^```[\s\S]*?^```$", "", document, flags=re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def links_nowhere(document: str) -> set[str]:
    return set(re.findall(r"\]\(#([^)]+)\)", document)) - headings(document)


def queues_missing(document: str) -> set[str]:
    named = set(re.findall(r"\bsmartstore\.(?:answers|index)[a-z.]*", document))
    return named - set(Topology("smartstore", work_queues(10)).names())


def files_missing(document: str) -> set[str]:
    return {name for name in FILES.findall(document) if not (ROOT / name).exists()}


CHECKS = [
    not_understood, targets_missing, settings_missing, metrics_missing, services_missing, links_nowhere,
    queues_missing, files_missing,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_document_names_only_what_is_there(check: Callable[[str], object]) -> None:
    assert not check(text())


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ("```bash\ndocker compose exec api smartstore index --roll-back\n```\n", not_understood),
        ("```bash\nkubectl -n smartstore exec deploy/chat -- smartstore forgets ID\n```\n", not_understood),
        ("```bash\nmake bills\n```\n", targets_missing),
        ("`SMARTSTORE_MEMORY__WEEKS`", settings_missing),
        ("`smartstore_first_token_minutes`", metrics_missing),
        ("```bash\ndocker compose stop api answers\n```\n", services_missing),
        ("```bash\ndocker compose exec -T postgresql pg_dump > pages.dump\n```\n", services_missing),
        ("[거기](#어디)", links_nowhere),
        ("`smartstore.answer.dead` `smartstore.answers.died`", queues_missing),
        ("`deploy/alerts.yaml`", files_missing),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_document_that_is_wrong_is_seen(wrong: str, check: Callable[[str], object]) -> None:
    assert check(f"{text()}\n{wrong}")


def test_commands_are_read() -> None:
    calls = {tuple(arguments[:2]) for arguments in of_ours(text())}

    assert calls >= {("forget", "ID"), ("index", "--rollback"), ("queue", "dead"), ("reindex", "--watch")}
    assert len(commands(text())) > 40


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    sections = dict(re.findall(r"^### (\w+)\n([\s\S]*?)(?=^##|\Z)", text(), re.MULTILINE))

    assert {rule["alert"] for rule in rules()} == sections.keys()
    for rule in rules():
        document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / document, anchor in headings(text())) == (DOCUMENT, True)
        told = re.findall(r"^- \*\*(.+?)\*\*: .+", sections[rule["alert"]], re.MULTILINE)
        assert told == ["뜻", "볼 것", "할 것"], rule["alert"]


def test_settings_that_bound_a_life_are_told_with_their_defaults() -> None:
    lives = {name: default for name, (default, _) in variables().items() if re.search(r"_DAYS$|KEEP_SECONDS$", name)}
    table = text().partition("## 개인정보")[2].partition("###")[0]

    assert len(lives) >= 5
    for name, default in lives.items():
        assert re.search(rf"`{name}`\({default:g}(?:일|초)\)", table), name


def test_lives_in_compose_are_as_told() -> None:
    observing = ROOT / "deploy" / "observability"
    tempo = yaml.safe_load((observing / "tempo.yaml").read_text(encoding="utf-8"))
    table = text().partition("## 개인정보")[2].partition("###")[0]

    assert tempo["compactor"]["compaction"]["block_retention"] == f"{7 * 24}h"
    assert "compose의 Tempo는 7일" in table
    assert "--storage.tsdb.retention.time=15d" in loaded()["services"]["prometheus"]["command"]
    assert "compose에서 15일" in table
