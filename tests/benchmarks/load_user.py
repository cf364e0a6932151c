"""What one seller does under load, as Locust runs it: conversations of a few questions, with thought between them.

load.py starts it. Every line of the file --asked is a question; what was measured of each goes to a line of --measured.
"""

import json
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task
from locust.argument_parser import LocustArgumentParser
from requests import RequestException

THINK_SECONDS = (20, 40)
TURNS_OF_A_TALK = 4
WHOLE_SECONDS = 60
questions: Iterator[str] = iter(())


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """Take the names of the two files."""
    parser.add_argument("--asked", type=Path, required=True)
    parser.add_argument("--measured", type=Path, required=True)


@events.test_start.add_listener
def read_questions(environment: Any, **_: object) -> None:
    """Read what will be asked."""
    global questions
    questions = cycle(environment.parsed_options.asked.read_text(encoding="utf-8").splitlines())


class Seller(HttpUser):
    """Asks, reads the answer as it comes, thinks, and asks again."""

    wait_time = between(*THINK_SECONDS)

    def on_start(self) -> None:
        """Begin with no conversation."""
        self.session_id, self.turns = "", 0

    @task
    def ask(self) -> None:
        """Ask one question and read its answer to the end."""
        if self.turns % TURNS_OF_A_TALK == 0:
            self.session_id = ""
        self.turns += 1
        body = {"question": next(questions)} | ({"session_id": self.session_id} if self.session_id else {})
        began, clock = time.time(), time.perf_counter()
        with self.client.post(
            "/api/chat", json=body, stream=True, timeout=WHOLE_SECONDS, catch_response=True, name="headers"
        ) as response:
            found = heard(response, clock)
            if found["problem"]:
                response.failure(found["problem"])
        self.session_id = found.pop("session_id")
        for name in ("first", "whole"):
            self.environment.events.request.fire(
                request_type="SSE", name=name, response_time=found[name], response_length=0, exception=None, context={}
            )
        with self.environment.parsed_options.measured.open("a", encoding="utf-8") as file:
            print(json.dumps({"at": began} | found, ensure_ascii=False), file=file)


def heard(response: Any, clock: float) -> dict[str, Any]:
    """Return what an answer brought, its first token and its end in milliseconds from the question on."""
    found: dict[str, Any] = {"first": 0.0, "kind": "", "session_id": "", "problem": ""}
    name = "nothing"
    if response.status_code != 200:
        return found | {"problem": f"{response.status_code} {response.error or response.text}", "whole": since(clock)}
    try:
        for line in response.iter_lines():
            if line.startswith(b"event: "):
                name = line[7:].decode()
                if name == "token" and not found["first"]:
                    found["first"] = since(clock)
            elif line.startswith(b"data: "):
                found |= told(name, json.loads(line[6:]))
    except RequestException as error:
        found["problem"] = repr(error)
    if name != "done":
        found["problem"] = found["problem"] or f"ended with {name}"
    return found | {"whole": since(clock)}


def told(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return what an event says that is kept."""
    kept = {"started": "session_id", "answer": "kind"}
    if name == "error":
        return {"problem": json.dumps(data, ensure_ascii=False)}
    return {kept[name]: data[kept[name]]} if name in kept else {}


def since(clock: float) -> float:
    """Return the milliseconds since a reading of the performance counter."""
    return (time.perf_counter() - clock) * 1000
