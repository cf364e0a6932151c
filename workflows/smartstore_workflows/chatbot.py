"""The chatbot as a library: ask, and read the answer as it is written."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Self

import structlog

from smartstore_indexing.errors import FaqError, InvalidRequest, StoreUnavailable, TransientError, UnknownResource
from smartstore_indexing.faq import FAQ
from smartstore_indexing.settings import EXTRACTIVE, OPENAI, Settings, load_settings
from smartstore_workflows import wire
from smartstore_workflows.app import Services, build
from smartstore_workflows.events import (
    AnswerWritten,
    Fact,
    Outcome,
    QuestionAsked,
    Restarted,
    SourcesFound,
    StageEnded,
    StageStarted,
    TokenStreamed,
    Turn,
    Usage,
)
from smartstore_workflows.running import events_of
from smartstore_workflows.understanding import checked_question, checked_session_id

log = structlog.get_logger(__name__)
ID_BYTES = 16  # 128 random bits: nobody guesses another's conversation


class Chatbot:
    """Answers SmartStore sellers' questions from the indexed FAQ.

    ```python
    async with Chatbot() as bot:
        async for event in bot.stream("정산은 언제 되나요?"):
            if event.event == "token":
                print(event.data.text, end="")
    ```

    Any number of questions may run at once on one event loop.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings, by default those of the environment; nothing is opened before `async with`.

        Raises:
            Misconfigured: the environment's settings cannot be used.
        """
        self._settings = settings or load_settings()
        self._stack = AsyncExitStack()
        self._services: Services | None = None

    async def __aenter__(self) -> Self:
        """Open the index, the conversations and the model; raises what `app.build` raises."""
        self._services = await self._stack.enter_async_context(build(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close everything."""
        self._services = None
        await self._stack.aclose()

    async def warm_up(self) -> None:
        """Load the models and the index now, not at the first question; raises what IndexReader.snapshot raises."""
        services = self.services
        await asyncio.gather(
            services.retriever.searchable(), services.vectors.of("준비"), asyncio.to_thread(services.morphemes.load)
        )

    @property
    def services(self) -> Services:
        """Return what is open; RuntimeError outside `async with`."""
        if self._services is None:
            raise RuntimeError("use Chatbot inside `async with`")
        return self._services

    async def stream(
        self, question: str, *, session_id: str | None = None, faq_id: str | None = None, model: str | None = None
    ) -> AsyncGenerator[wire.StreamEvent, None]:
        """Yield the events of one answer: `started` first, `done` last; close the iterator to stop the run.

        Args:
            question: 1 to 2,000 characters; with `faq_id` it may be empty.
            session_id: names the conversation to go on with; without it a new one begins, named in `started`.
            faq_id: a chosen follow-up: its FAQ answers, whatever the question says.
            model: "extractive" or "openai"; by default the settings'.

        Raises:
            InvalidRequest: the question or the model's name cannot be used.
            UnknownResource: there is no FAQ of that id.
        What goes wrong once the run has begun comes as an `error` event before `done`.
        """
        asked = await self._checked(question, faq_id, model)
        run = _Run(checked_session_id(session_id) or new_id(), self._model_name(asked.model))
        yield run.started()
        try:
            async with aclosing(self._answer(run, asked)) as events:
                async for event in events:
                    yield event
        except FaqError as error:
            yield run.failed(error)
        yield run.done()

    async def ask(
        self, question: str, *, session_id: str | None = None, faq_id: str | None = None, model: str | None = None
    ) -> wire.Reply:
        """Return the whole answer; takes what `stream` takes, and raises what that tells in `error` events too."""
        asked = await self._checked(question, faq_id, model)
        run = _Run(checked_session_id(session_id) or new_id(), self._model_name(asked.model))
        async with aclosing(self._answer(run, asked)) as events:
            async for _ in events:
                pass
        return run.reply()

    async def outcome(self, question: str, history: Sequence[Turn] = ()) -> Outcome:
        """Return how the workflow ends for a question, with its ranked list; for evaluation: nothing is remembered."""
        asked = QuestionAsked(question=checked_question(question), history=tuple(history), model=EXTRACTIVE)
        async with aclosing(events_of(self.services.workflow, asked)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    return event
        raise TransientError("답변이 끝나지 않았습니다. 다시 시도해 주세요.")

    async def faq(self, faq_id: str) -> FAQ:
        """Return the whole FAQ of an id; UnknownResource when the index holds none."""
        found = (await self.services.retriever.catalog()).get(faq_id)
        if found is None:
            raise UnknownResource("그 FAQ는 지금 색인에 없습니다.")
        return found

    async def forget(self, session_id: str) -> None:
        """Delete a conversation; one that is unknown is no error."""
        await self.services.conversations.forget(session_id)

    async def _checked(self, question: str, faq_id: str | None, model: str | None) -> QuestionAsked:
        chosen = model or self._settings.default_model
        available = [EXTRACTIVE, *([OPENAI] if self.services.model else [])]
        if chosen not in available:
            raise InvalidRequest(f"모델 {chosen}은(는) 설정되어 있지 않습니다. 쓸 수 있는 모델: {', '.join(available)}")
        if faq_id is not None:
            faq = await self.faq(faq_id)
            asked = question if question.strip() else faq.question
            return QuestionAsked(question=checked_question(asked), faq_id=faq_id, model=chosen)
        return QuestionAsked(question=checked_question(question), model=chosen)

    async def _answer(self, run: "_Run", asked: QuestionAsked) -> AsyncGenerator[wire.StreamEvent, None]:
        history = await self._history(run)
        started = QuestionAsked(question=asked.question, history=tuple(history), faq_id=asked.faq_id, model=asked.model)
        async with aclosing(events_of(self.services.workflow, started)) as events:
            async for event in events:
                for shown in run.shown(event):
                    yield shown
        if run.outcome is not None:
            await self._remember(run.session_id, run.outcome)

    def _model_name(self, chosen: str) -> str:
        model = self.services.model
        return model.name if model is not None and chosen == OPENAI else EXTRACTIVE

    async def _history(self, run: "_Run") -> list[Turn]:
        """Return the conversation; where it cannot be read the answer goes on without it, degraded."""
        try:
            return await self.services.conversations.turns(run.session_id)
        except StoreUnavailable as error:
            log.warning("conversation not read", code=error.code)
            run.degraded = True
            return []

    async def _remember(self, session_id: str, outcome: Outcome) -> None:
        """Add the turn to the conversation; the answer has been given, so a failure is only logged."""
        written = outcome.written
        turn = Turn(
            question=written.asked.question,
            standalone=written.asked.standalone,
            answer=written.text,
            kind=written.kind,
            faq_ids=written.citations,
            offered=tuple(offer.faq_id for offer in outcome.suggestions),
        )
        try:
            await self.services.conversations.append(session_id, turn)
        except StoreUnavailable as error:
            log.warning("conversation not written", code=error.code)


def new_id() -> str:
    """Return an id that nobody can guess: 32 hexadecimal digits."""
    return secrets.token_hex(ID_BYTES)


class _Run:
    """Counts a run's events, turns the workflow's into the wire's, and keeps what the whole reply is made of."""

    def __init__(self, session_id: str, model: str) -> None:
        self.run_id = new_id()
        self.session_id = session_id
        self.degraded = False
        self.outcome: Outcome | None = None
        self._model = model
        self._answer: wire.Answer | None = None
        self._last_id = 0
        self._timings: dict[str, float] = {}

    def started(self) -> wire.StreamEvent:
        return self._event("started", wire.Started(run_id=self.run_id, session_id=self.session_id, model=self._model))

    def shown(self, event: Fact | Outcome) -> list[wire.StreamEvent]:
        """Return what the reader sees of an event of the workflow."""
        match event:
            case StageStarted():
                return [self._event("stage", wire.Stage(stage=event.stage))]
            case StageEnded():
                self._timings[event.stage] = round(event.milliseconds, 2)
            case SourcesFound():
                return [self._event("sources", event.sources)]
            case TokenStreamed():
                return [self._event("token", wire.Token(text=event.text))]
            case Restarted():
                return [self._event("restart", wire.Restart(reason=event.reason))]
            case AnswerWritten():
                self._answer = self._answered(event)
                return [self._event("answer", self._answer)]
            case Outcome():
                self.outcome = event
                return [self._event("suggestions", event.suggestions)]
        return []

    def failed(self, error: FaqError) -> wire.StreamEvent:
        failure = wire.Failure(
            code=error.code,
            message=error.message,
            retryable=isinstance(error, TransientError),
            request_id=self.run_id,
        )
        return self._event("error", failure)

    def done(self) -> wire.StreamEvent:
        return self._event("done", wire.Done(run_id=self.run_id, timings_ms=self._timings, usage=self._usage()))

    def reply(self) -> wire.Reply:
        """Return the whole of a run that has ended."""
        if self.outcome is None or self._answer is None:
            raise TransientError("답변이 끝나지 않았습니다. 다시 시도해 주세요.")
        return wire.Reply(
            run_id=self.run_id,
            session_id=self.session_id,
            sources=self.outcome.written.sources,
            answer=self._answer,
            suggestions=self.outcome.suggestions,
            usage=self._usage(),
            timings_ms=self._timings,
        )

    def _answered(self, written: AnswerWritten) -> wire.Answer:
        return wire.Answer(
            kind=written.kind,
            text=written.text,
            citations=written.citations,
            cached=False,
            model=EXTRACTIVE if written.degraded else self._model,
            degraded=written.degraded or self.degraded,
        )

    def _usage(self) -> Usage:
        return self.outcome.written.usage if self.outcome is not None else Usage()

    def _event(self, name: wire.EventName, data: wire.Data) -> wire.StreamEvent:
        self._last_id += 1
        return wire.StreamEvent(id=self._last_id, event=name, data=data)
