"""Every command of README.md, run in a copy of the checkout; blocks marked "bash no-test" need more than that."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest
from conftest import ROOT, wait_until
from served import listens
from talking import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 500
READY = re.compile(r"(http://\S+) 에서 답합니다")
FENCES = {"", "python", "html", "bash", "bash no-test"}
OWN_FAQ = "내-faq.csv"
CSV = "category,question,answer,keyword\n정산,정산은 언제 되나요?,구매확정 다음 영업일에 정산됩니다.,\n"
QUESTION = "정산은 언제 되나요?"
MAKE = {"check", "fix", "test", "test-long", "bench", "demo"}
SMARTSTORE = {"index", "ask", "eval", "doctor"}
# What `make test` itself runs, again, or what takes minutes.
LONG = {"make bench", "make check", "make demo", "make fix", "make test", "make test-long"}
EVALUATES = "smartstore eval"  # tests/ui/test_cli_eval.py runs it too
# `make test` would run this file too.
FEW_TESTS = "PYTEST=.venv/bin/python -m pytest -q tests/deploy/test_compose.py"
FEW_ROWS = "ROWS=1000"  # `make bench` grows to 100,000


def fences() -> list[tuple[str, str]]:
    """Return the info and the text of every fenced block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)


def commands() -> list[str]:
    """Return every command that stands in a block of bash, once."""
    lines = (line.strip() for info, text in fences() if info == "bash" for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository, and a home whose data folder holds the indexed sample."""

    folder: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return a whole environment without a key; what is temporary stays in the home."""
        return {
            "PATH": os.defpath,
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
        }

    def run(self, *command: str) -> str:
        """Run a command to its end and return what it printed; it must not fail."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def visit(self, *command: str) -> str:
        """Run a command in a terminal, ask the server that it starts one question, press Ctrl-C; return the answer."""
        child = pexpect.spawn(
            command[0],
            list(command[1:]),
            cwd=str(self.folder),
            env=self.environment,
            encoding="utf-8",
            timeout=SECONDS,
        )
        try:
            child.expect(READY)
            assert child.match
            with Client(child.match[1]) as client:
                wait_until(lambda: listens(int(child.match[1].rpartition(":")[2])))
                assert "스마트스토어" in client.get("/").text
                answer = client.reply(QUESTION)["answer"]["text"]
            child.sendintr()
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
        return str(answer)


@pytest.fixture(scope="module")
def checkout(indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder, home = tmp_path_factory.mktemp("readme") / "checkout", tmp_path_factory.mktemp("home")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
            os.utime(target, (0, 0))  # older than .venv/.installed: nothing is installed again
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / OWN_FAQ).write_text(CSV, encoding="utf-8")
    shutil.copytree(indexed_dir, home / ".local" / "share" / "smartstore-chatbot")
    return Checkout(folder, home)


def test_every_block_of_the_readme_is_of_a_known_kind() -> None:
    assert [info for info, _ in fences() if info not in FENCES] == []
    assert commands()


@pytest.mark.parametrize(
    "command",
    [pytest.param(line, marks=[pytest.mark.long] if line in LONG or EVALUATES in line else []) for line in commands()],
)
def test_command_of_the_readme_works(checkout: Checkout, command: str) -> None:
    match shlex.split(command):
        case ["make", "run", *arguments] if arguments in ([], [f"FAQ={OWN_FAQ}"]):
            assert "영업일" in checkout.visit("make", "run", *arguments)
        case ["make", target] if target in MAKE:
            checkout.run("make", target, FEW_TESTS, FEW_ROWS)
        case [".venv/bin/smartstore", name, *arguments] if name in SMARTSTORE:
            assert re.search("[가-힣]", checkout.run(".venv/bin/smartstore", name, *arguments))
        case _:
            pytest.fail(f"no test knows how to run: {command}")
