"""`smartstore ask`: one question, or a conversation, in the terminal."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing

from rich.console import Console
from rich.status import Status

from smartstore_indexing.errors import FaqError
from smartstore_indexing.settings import load_settings
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.events import Source, StageName, Suggestion
from smartstore_workflows.understanding import checked_question
from smartstore_workflows.wording import unsupported_note

STAGES: dict[StageName, str] = {
    "understand": "질문 이해",
    "filter": "범위 확인",
    "retrieve": "FAQ 검색",
    "synthesize": "답변 작성",
    "suggest": "추천 질문",
}
WELCOME = """스마트스토어 FAQ 챗봇입니다.
가입, 상품 등록, 배송, 취소·반품·교환, 정산 등 판매자 도움말에서 찾아 답해 드립니다.
질문을 입력해 주세요. 1~3을 입력하면 추천 질문으로, /1을 입력하면 [1]번 도움말 전문으로 답합니다.
/새대화: 새 대화 시작 · /도움말: 이 안내 · /끝 또는 Ctrl-D: 종료"""
GOODBYE = "이용해 주셔서 감사합니다."
PROMPT = "\n질문> "


def run_ask(question: str | None, *, as_json: bool, session_id: str | None, model: str | None) -> int:
    """Answer one question and return its exit code, or hold a conversation until its end."""
    if question is not None:
        checked_question(question)  # refused now, not when everything is loaded
    with asyncio.Runner() as runner:
        bot = Chatbot(load_settings())
        runner.run(bot.__aenter__())
        try:
            with Status("준비 중…", console=Console(stderr=True)):
                runner.run(bot.warm_up())
            talk = Talk(runner, bot, as_json=as_json, session_id=session_id, model=model)
            return talk.answer(question) if question is not None else talk.converse()
        finally:
            runner.run(bot.__aexit__(None, None, None))


class Talk:
    """A conversation in the terminal; input is read between the event loop's runs, so Ctrl-C always reaches us."""

    def __init__(
        self, runner: asyncio.Runner, bot: Chatbot, *, as_json: bool, session_id: str | None, model: str | None
    ) -> None:
        """Take the open bot; `session_id` None begins a new conversation."""
        self._runner = runner
        self._bot = bot
        self._as_json = as_json
        self._session_id = session_id
        self._model = model
        self._sources: Sequence[Source] = ()
        self._suggestions: Sequence[Suggestion] = ()
        self._errors = Console(stderr=True)
        self._notes = sys.stderr if as_json else sys.stdout  # with --json, stdout is for events alone
        self._interactive = sys.stdin is not None and sys.stdin.isatty() and not as_json  # None: closed by the caller
        self._failed = False

    def converse(self) -> int:
        """Answer what is typed until its end; an answer that fails does not end the conversation."""
        if self._interactive:
            import readline  # noqa: F401  gives input() its editing and history

            sys.stdout.write(WELCOME + "\n")
            try:
                self._take_lines()
            except KeyboardInterrupt:  # at the prompt; _take has those of an answer
                sys.stdout.write("\n")
            sys.stdout.write(f"{GOODBYE}\n")
            return 0
        self._take_lines()
        return 1 if self._failed else 0

    def _take_lines(self) -> None:
        while True:
            try:
                line = input(PROMPT if self._interactive else "").strip()
            except EOFError:
                sys.stdout.write("\n" if self._interactive else "")
                return
            if line in ("/끝", "/quit", "/exit"):
                return
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            if line == "/도움말":
                self._notes.write(WELCOME + "\n")
            elif line == "/새대화":
                self._session_id, self._sources, self._suggestions = None, (), ()
                self._notes.write("새 대화를 시작합니다.\n")
            elif line.startswith("/"):
                self._show_source(line[1:])
            elif line.isdecimal() and 1 <= int(line) <= len(self._suggestions):
                chosen = self._suggestions[int(line) - 1]
                self.answer(chosen.text, faq_id=chosen.faq_id)
            else:
                self.answer(line)
        except FaqError as error:
            self._failed = True
            sys.stderr.write(f"오류: {error.message}\n")
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            sys.stdout.write("\n답변을 멈췄습니다.\n")

    def answer(self, question: str, *, faq_id: str | None = None) -> int:
        """Answer one question and return 0, or 1 when it ended in an error."""
        return self._runner.run(self._answer(question, faq_id))

    async def _answer(self, question: str, faq_id: str | None) -> int:
        exit_code = 0
        screen = JsonLines() if self._as_json else Screen(self._errors)
        events = self._bot.stream(question, session_id=self._session_id, faq_id=faq_id, model=self._model)
        with screen:
            async with aclosing(events):
                async for event in events:
                    screen.show(event)
                    match event.data:
                        case wire.Started():
                            self._session_id = event.data.session_id
                            self._sources, self._suggestions = (), ()
                        case wire.Failure():
                            exit_code, self._failed = 1, True
                        case tuple():
                            self._keep(event)
        return exit_code

    def _keep(self, event: wire.StreamEvent) -> None:
        if event.event == "sources":
            self._sources = [item for item in event.data if isinstance(item, Source)]
        else:
            self._suggestions = [item for item in event.data if isinstance(item, Suggestion)]

    def _show_source(self, number: str) -> None:
        found = [source for source in self._sources if str(source.n) == number]
        if not found:
            self._notes.write("그런 명령이나 도움말 번호가 없습니다. /도움말을 입력하면 사용법을 볼 수 있습니다.\n")
            return
        faq = self._runner.run(self._bot.faq(found[0].id))
        self._notes.write(f"\n[{found[0].n}] {faq.title}\n\n{faq.answer}\n")


class JsonLines:
    """Prints one event a line."""

    def __enter__(self) -> "JsonLines":
        """Print nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Print nothing more."""

    def show(self, event: wire.StreamEvent) -> None:
        """Print the event as JSON."""
        sys.stdout.write(event.to_json() + "\n")
        sys.stdout.flush()


class Screen:
    """Prints an answer as it comes: the stage while it waits, the text, then the sources and the offers."""

    def __init__(self, errors: Console) -> None:
        """Take the console of the status line."""
        self._status = Status("", console=errors)
        self._sources: list[str] = []
        self._offers: list[str] = []
        self._note = ""

    def __enter__(self) -> "Screen":
        """Begin to show the stages, where the terminal can."""
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the status line away."""
        self._status.stop()

    def show(self, event: wire.StreamEvent) -> None:
        """Print what an event adds to the screen."""
        match event.data:
            case wire.Stage():
                self._status.update(f"{STAGES[event.data.stage]} 중…")
            case wire.Token():
                self._status.stop()
                _write(event.data.text)
            case wire.Restart():
                _write("\n\n(답변을 다시 작성합니다.)\n\n")
                self._sources.clear()
            case wire.Answer(unsupported=claims):
                _write("\n")
                self._note = f"\n※ {unsupported_note(claims)}\n" if claims else ""
            case wire.Failure():
                self._status.stop()
                sys.stderr.write(f"오류: {event.data.message}\n")
            case wire.Done():
                _write(self._note + _section("도움말", self._sources) + _section("더 궁금하시다면", self._offers))
            case tuple() as items:
                self._sources += [_source_line(item) for item in items if isinstance(item, Source)]
                offers = (item for item in items if isinstance(item, Suggestion))
                self._offers += [f"  {number}) {offer.text}" for number, offer in enumerate(offers, start=1)]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _section(heading: str, lines: Sequence[str]) -> str:
    return "\n".join(["", heading, *lines, ""]) if lines else ""


def _source_line(source: Source) -> str:
    category = f"{source.category} · " if source.category else ""
    return f"  [{source.n}] {category}{source.question}"
