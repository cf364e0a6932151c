"""Runs the real program in a world of its own: a home and working directory, a data folder, and no key."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pexpect

T = TypeVar("T")
PROGRAM = str(Path(sys.executable).parent / "smartstore")
SECONDS = 120  # for one process; a start takes some 10 s on a busy machine
PROMPT = "질문> "
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


@dataclass(frozen=True)
class Result:
    """How one process ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return stdout read as one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def only(self, event: str) -> Any:
        """Return the data of the one event of that name."""
        (found,) = [item["data"] for item in self.events if item["event"] == event]
        return found

    @property
    def complains_in_korean(self) -> bool:
        """Tell whether it failed with a Korean message on stderr, and no traceback."""
        return self.code != 0 and bool(re.search("[가-힣]", self.err)) and "Traceback" not in self.err


@dataclass(frozen=True)
class World:
    """A folder to work in, which is the home too, and the data folder."""

    folder: Path
    data: Path

    @classmethod
    def make(cls, folder: Path, indexed: Path | None = None) -> "World":
        """Make a world in a folder, the data folder copied from an indexed one, or absent."""
        (folder / "work").mkdir(parents=True)
        if indexed is not None:
            shutil.copytree(indexed, folder / "data")
        return cls(folder / "work", folder / "data")

    def environment(self, **more: str) -> dict[str, str]:
        """Return the whole environment of the program."""
        basic = {"PATH": os.defpath, "HOME": str(self.folder), "SMARTSTORE_DATA_DIR": str(self.data), "LANG": "C.UTF-8"}
        return {**basic, **more}

    def run(self, *arguments: str | bytes | Path, typed: bytes = b"", **more: str) -> Result:
        """Run the program to its end with these bytes on stdin."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            input=typed,
            capture_output=True,
            cwd=self.folder,
            env=self.environment(**more),
            timeout=SECONDS,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def shell(self, line: str, **more: str) -> Result:
        """Run a line of bash, in which $PROGRAM is the program."""
        done = subprocess.run(
            ["bash", "-c", line],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.folder,
            env=self.environment(PROGRAM=PROGRAM, **more),
            timeout=SECONDS,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def terminal(self, *arguments: str, **more: str) -> "Terminal":
        """Start the program in a terminal of its own."""
        return Terminal(
            pexpect.spawn(
                PROGRAM,
                list(arguments),
                cwd=str(self.folder),
                env=self.environment(TERM="xterm-256color", **more),
                encoding="utf-8",
                timeout=SECONDS,
                dimensions=(50, 200),
            )
        )


class Terminal:
    """The program in a pseudo-terminal; what it shows is returned without escape codes."""

    def __init__(self, child: "pexpect.spawn[str]") -> None:
        """Own a started child."""
        self.child = child

    def __enter__(self) -> "Terminal":
        """Go on with the started program."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the program where it has not ended."""
        self.child.close(force=True)

    def until(self, text: str) -> str:
        """Return what is shown until this text."""
        self.child.expect_exact(text)
        return ESCAPES.sub("", self.child.before or "")

    def say(self, line: str) -> str:
        """Type a line and return what is shown until the next prompt."""
        self.child.sendline(line)
        return self.until(PROMPT)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.child.sendintr()

    def rest(self) -> str:
        """Return what is shown until the program ends."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return ESCAPES.sub("", self.child.before or "")

    @property
    def code(self) -> int | None:
        """Return the exit code of a program that has ended by itself."""
        return self.child.exitstatus


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what the calls return, run two at a time: a process keeps one core busy while it starts."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda call: call(), calls))
