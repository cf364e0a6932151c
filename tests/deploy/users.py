"""People who go on asking whatever happens: what they were told, and whether it was the answer to their question."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import socketio
from page_sockets import PageSocket, connected, cookies_of
from talking import Client, Event, events_of, said
from topology import Topology

COUNT = 20
FIRST_USER, FIRST_QUESTION = 100, 1_000  # no two questions have the same numbers, by which answers are given again
THINK_SECONDS, RETRY_SECONDS = 1.0, 0.5
TURNS_OF_A_TALK = 15  # fewer than a conversation keeps
LINK = re.compile(r"\[(\[\d+\])\]\(#[^)]*\)")  # how the page shows a citation
TAIL = " 이어지는 글입니다." * 6


@dataclass
class Turn:
    """One question: how it ended, and when it was asked and ended."""

    session_id: str
    question: str
    wanted: str
    began: float
    ended: float = 0.0
    told: str = ""
    error: str = ""
    cut: bool = False

    @property
    def finished(self) -> bool:
        return not (self.error or self.cut)


@dataclass
class User:
    """Asks one question after the other in conversations of at most so many turns."""

    number: int
    faq_id: str = ""
    turns: list[Turn] = field(default_factory=list)
    talks: int = 0

    def begin(self, session_id: str) -> Turn:
        """Begin a turn; the scripted model says again in a conversation what it was asked to say first."""
        self.talks += not session_id
        wanted = f"{FIRST_USER + self.number}번 사람의 {self.talks}번째 대화의 답입니다 [1].{TAIL}"
        asked = f"{FIRST_QUESTION + len(self.turns)}번째 질문입니다 [[reply: {wanted}]]"
        turn = Turn(session_id, asked, wanted, time.monotonic())
        self.turns.append(turn)
        return turn

    def ask(self, client: Client, session_id: str) -> Turn:
        """Ask through the API."""
        turn = self.begin(session_id)
        body = {"question": turn.question, "faq_id": self.faq_id}
        if session_id:
            body["session_id"] = session_id
        try:
            with client.stream("POST", "/api/chat", json=body) as response:
                if response.status_code != 200:
                    turn.error = refusal(response)
                else:
                    self._hear(turn, response)
        except httpx.TransportError as error:
            turn.cut, turn.told = True, repr(error)
        turn.ended = time.monotonic()
        return turn

    def _hear(self, turn: Turn, response: httpx.Response) -> None:
        events = list(events_of(response))
        turn.session_id = events[0].data["session_id"]
        failed = [event.data for event in events if event.name == "error"]
        if failed:
            turn.error = checked(failed[0])
        else:
            assert events[-1].name == "done"
            turn.told = said(events)
            assert last_answer(events) == turn.told


def last_answer(events: list[Event]) -> str:
    """Return the answer; each one before it was taken back by a `restart`."""
    names = [event.name for event in events if event.name in ("answer", "restart")]
    assert "answer answer" not in " ".join(names), names
    return str([event.data["text"] for event in events if event.name == "answer"][-1])


def refusal(response: httpx.Response) -> str:
    """Return the code of a clear refusal."""
    body = response.read().decode()
    assert response.status_code in (429, 503, 504), body
    found: dict[str, str] = response.json()["error"]
    return checked(found)


def checked(error: dict[str, str]) -> str:
    """Return the code of an error that says what to do; nobody foresaw one that is `internal`."""
    assert error["code"] != "internal", error
    assert re.search("[가-힣].*주세요", error["message"]), error
    return error["code"]


def answered_since(turn: Turn, moment: float) -> bool:
    return turn.finished and turn.ended > 0 and turn.began > moment


@dataclass
class Crowd:
    """All who ask, until they are told to stop."""

    users: list[User]
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)

    def all_answered_since(self, moment: float) -> bool:
        """Tell whether everybody was answered who asked after a moment."""
        assert not self.failures, self.failures[0]
        return all(any(answered_since(turn, moment) for turn in user.turns) for user in self.users)

    def turns(self) -> list[Turn]:
        return [turn for user in self.users for turn in user.turns if turn.ended]

    def wrong(self) -> list[tuple[str, str]]:
        """Return what was told that is not the answer to the question, with the answer."""
        told = [(turn.told, turn.wanted) for turn in self.turns() if turn.finished]
        return [(text, wanted) for text, wanted in told if text.split() != wanted.split()]

    def recovered_at(self, moment: float) -> float:
        """Return when the last one had been answered who asked after a moment."""
        return max(min(turn.ended for turn in user.turns if answered_since(turn, moment)) for user in self.users)

    def codes(self) -> set[str]:
        return {turn.error for turn in self.turns() if turn.error}

    def cuts(self) -> list[str]:
        return [turn.told for turn in self.turns() if turn.cut]


@contextmanager
def crowd_at_the_api(running: Topology, faq_id: str) -> Iterator[Crowd]:
    """Let everybody ask through the API while inside."""
    crowd = Crowd([User(number, faq_id) for number in range(COUNT)])

    def go_on(user: User) -> None:
        session_id, answered = "", 0
        try:
            with running.client() as client:
                crowd.over.wait(THINK_SECONDS * user.number / COUNT)
                while not crowd.over.is_set():
                    turn = user.ask(client, session_id)
                    answered += turn.finished
                    session_id = "" if answered % TURNS_OF_A_TALK == 0 else turn.session_id
                    crowd.over.wait(THINK_SECONDS if turn.finished else RETRY_SECONDS)
        except BaseException as error:
            crowd.failures.append(error)
            raise

    with _threads(crowd, [threading.Thread(target=go_on, args=(user,)) for user in crowd.users]):
        yield crowd


@contextmanager
def crowd_at_the_page(running: Topology) -> Iterator[Crowd]:
    """Let everybody ask on the chat page while inside, each in a browser of their own."""
    crowd = Crowd([User(number) for number in range(COUNT)])
    url = running.url("chat")

    async def go_on(user: User) -> None:
        cookies = await asyncio.to_thread(cookies_of, url)
        while not crowd.over.is_set():
            try:
                async with connected(url, cookies) as socket:
                    gone = asyncio.Event()
                    socket.client.on("disconnect", lambda *_, gone=gone: gone.set())
                    await asyncio.sleep(THINK_SECONDS)  # the page begins its chat
                    talking = False
                    while not (crowd.over.is_set() or gone.is_set()):
                        await _ask_on_page(user, socket, gone, talking=talking)
                        talking = True
                        await asyncio.sleep(THINK_SECONDS)
            except (socketio.exceptions.ConnectionError, OSError):
                await asyncio.sleep(RETRY_SECONDS)

    async def all_of_them() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for user in crowd.users:
                    group.create_task(go_on(user))
        except BaseException as error:
            crowd.failures.append(error)
            raise

    with _threads(crowd, [threading.Thread(target=asyncio.run, args=(all_of_them(),))]):
        yield crowd


async def _ask_on_page(user: User, socket: PageSocket, gone: asyncio.Event, *, talking: bool) -> None:
    turn = user.begin(socket.session_id if talking else "")
    before = {step["id"] for step in socket.steps("assistant_message")}
    asking = asyncio.create_task(socket.ask(f"정산 관리는 언제 되나요? {turn.question}"))
    leaving = asyncio.create_task(gone.wait())
    await asyncio.wait((asking, leaving), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if asking.done() and asking.exception() is None:
        (answer,) = [step for step in socket.steps("assistant_message") if step["id"] not in before]
        turn.error = answer["output"] if answer["isError"] else ""
        turn.told = LINK.sub(r"\1", answer["output"])
    else:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert gone.is_set(), "an answer that never ended"
        turn.cut = True
    turn.ended = time.monotonic()


@contextmanager
def _threads(crowd: Crowd, threads: list[threading.Thread]) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        crowd.over.set()
        for thread in threads:
            thread.join(timeout=120)
