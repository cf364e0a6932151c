"""The chatbot as a library: ask, and read the answer as it is written."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from types import TracebackType
from typing import Self

import anyio
import structlog

from smartstore_indexing.errors import FaqError, StoreUnavailable, UnknownModel, UnknownResource
from smartstore_indexing.faq import FAQ
from smartstore_indexing.settings import EXTRACTIVE, Settings, load_settings
from smartstore_workflows import wire
from smartstore_workflows.app import Services, build
from smartstore_workflows.events import (
    Outcome,
    QuestionAsked,
    Source,
    Turn,
)
from smartstore_workflows.forgetting import forget_session
from smartstore_workflows.masking import mask
from smartstore_workflows.records import Score
from smartstore_workflows.run_events import RunEvents
from smartstore_workflows.running import TimedOutcome, events_of, timed_outcome_of
from smartstore_workflows.sources import faqs_of, sources_of
from smartstore_workflows.understanding import checked_question, checked_session_id

log = structlog.get_logger(__name__)
NO_RUN = "그 답변을 찾을 수 없습니다. 오래되었거나 ID가 잘못되었습니다."


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
        await self.outcome("정산은 언제 되나요?")  # the first question takes three times as long as those after it

    @property
    def services(self) -> Services:
        """Return what is open; RuntimeError outside `async with`."""
        if self._services is None:
            raise RuntimeError("use Chatbot inside `async with`")
        return self._services

    async def stream(
        self,
        question: str,
        *,
        session_id: str | None = None,
        faq_id: str | None = None,
        model: str | None = None,
        history: Sequence[Turn] | None = None,
        request_id: str | None = None,
        run_id: str | None = None,
    ) -> AsyncGenerator[wire.StreamEvent, None]:
        """Yield the events of one answer: `started` first, `done` last; close the iterator to stop the run.

        Args:
            question: 1 to 2,000 characters; with `faq_id` it may be empty.
            session_id: names the conversation to go on with; without it a new one begins, named in `started`.
            faq_id: a chosen follow-up: its FAQ answers, whatever the question says.
            model: one of `models`; by default the settings'.
            history: the conversation so far, oldest turn first, of a caller that keeps it: nothing is remembered here.
            request_id: what `error` events name; by default the run's id.
            run_id: the run's id of a caller that has promised it already; by default a new one.

        Raises:
            InvalidRequest: the question cannot be used.
            UnknownResource: there is no FAQ of that id, or no model of that name.
            Conflict: nothing has been indexed, or the index must be made anew.
            StoreUnavailable: Milvus does not answer.
        What goes wrong once the run has begun comes as an `error` event before `done`.
        """
        asked = await self.checked(question, faq_id, model)
        run = RunEvents(checked_session_id(session_id), self.services.models.writer(asked.model), request_id, run_id)
        yield run.started()
        try:
            async with aclosing(self._answer(run, asked, history)) as events:
                async for event in events:
                    yield event
        except FaqError as error:
            yield run.failed(error)
        yield run.done()

    async def checked(self, question: str, faq_id: str | None, model: str | None) -> QuestionAsked:
        """Return what is asked, as `stream` takes it; raises what that raises before a run begins."""
        chosen = self.known_model(model or self._settings.default_model)
        await self.services.retriever.searchable()  # what stands in the way is raised before a run begins
        if faq_id is not None:
            faq = await self.faq(faq_id)
            asked = question if question.strip() else faq.question
            return QuestionAsked(question=checked_question(asked), faq_id=faq_id, model=chosen)
        return QuestionAsked(question=checked_question(question), model=chosen)

    async def ask(
        self, question: str, *, session_id: str | None = None, faq_id: str | None = None, model: str | None = None
    ) -> wire.Reply:
        """Return the whole answer; takes what `stream` takes, and raises what that tells in `error` events too."""
        asked = await self.checked(question, faq_id, model)
        run = RunEvents(checked_session_id(session_id), self.services.models.writer(asked.model))
        whole = wire.Gathered()
        whole.add(run.started())
        async with aclosing(self._answer(run, asked)) as events:
            async for event in events:
                whole.add(event)
        whole.add(run.done())
        return whole.reply()

    async def outcome(self, question: str, history: Sequence[Turn] = ()) -> Outcome:
        """Return how the workflow ends for a question, with its ranked list; nothing is remembered, no model asked.

        Raises:
            InvalidRequest: the question cannot be used.
        """
        return (await self.timed_outcome(question, history)).outcome

    async def timed_outcome(
        self, question: str, history: Sequence[Turn] = (), *, model: str = EXTRACTIVE
    ) -> TimedOutcome:
        """Return how the workflow ends for a question that a model answers, timed; for evaluation.

        Raises:
            InvalidRequest: the question cannot be used.
            UnknownModel: there is no model of that name.
        """
        asked = QuestionAsked(
            question=checked_question(question), history=tuple(history), model=self.known_model(model)
        )
        return await timed_outcome_of(self.services.uncached, asked)

    def known_model(self, name: str) -> str:
        """Return the name of a model; UnknownModel when there is none of that name."""
        if name not in self.models:
            raise UnknownModel(f"모델 {name}은(는) 설정되어 있지 않습니다. 쓸 수 있는 모델: {', '.join(self.models)}")
        return name

    @property
    def models(self) -> list[str]:
        """Return the names of the models that can answer, the default first."""
        return sorted(self.services.models.names, key=lambda name: name != self._settings.default_model)

    async def search(self, text: str, *, limit: int = 10, category: str | None = None) -> tuple[Source, ...]:
        """Return the FAQs that fit a text, best first, without judging whether they answer it.

        `category` keeps those of one category; raises what `stream` raises before a run.
        """
        retriever = self.services.retriever
        passages = await retriever.search(mask(text), limit=limit, category=category)
        return sources_of(faqs_of(passages, await retriever.catalog()), passages) if passages else ()

    async def rate(self, run_id: str, score: Score, comment: str | None = None) -> None:
        """Keep a thumb, 1 or -1, with its run; UnknownResource when there is no such run."""
        if not await self.services.stores.records.rate(run_id, score, mask(comment) if comment else None):
            raise UnknownResource(NO_RUN)

    async def unrate(self, run_id: str) -> None:
        """Take a run's thumb back; UnknownResource when there is no such run."""
        if not await self.services.stores.records.unrate(run_id):
            raise UnknownResource(NO_RUN)

    async def faq(self, faq_id: str) -> FAQ:
        """Return the whole FAQ of an id; UnknownResource when the index holds none."""
        found = (await self.services.retriever.catalog()).get(faq_id)
        if found is None:
            raise UnknownResource("그 FAQ는 지금 색인에 없습니다.")
        return found

    async def forget(self, session_id: str) -> bool:
        """Delete all that is kept of a conversation, after the answer that is being given in it.

        Return whether there was anything; raises what forget_session raises.
        """
        services = self.services
        async with services.stores.locks.hold(_turn_of(session_id)):
            return bool(await forget_session(services.stores, services.answers, session_id))

    async def _answer(
        self, run: RunEvents, asked: QuestionAsked, history: Sequence[Turn] | None = None
    ) -> AsyncGenerator[wire.StreamEvent, None]:
        stores = self.services.stores
        # Two questions of one conversation come one after the other, so that the second knows the first's answer.
        async with stores.locks.hold(_turn_of(run.session_id)) if history is None else nullcontext():
            turns = await self._history(run) if history is None else history
            started = QuestionAsked(
                question=asked.question, history=tuple(turns), faq_id=asked.faq_id, model=asked.model
            )
            async with aclosing(events_of(self.services.workflow, started)) as events:
                async for event in events:
                    for shown in run.shown(event):
                        yield shown
            if run.outcome is not None:
                with anyio.CancelScope(shield=True):  # an answer that was given whole is remembered
                    await self._remember(run, run.outcome, talk=history is None)

    async def _history(self, run: RunEvents) -> list[Turn]:
        """Begin or go on with the conversation; where it cannot be read the answer comes without it, degraded."""
        try:
            conversations = self.services.stores.conversations
            await conversations.begin(run.session_id)
            return [] if run.new_session else await conversations.turns(run.session_id)
        except StoreUnavailable as error:
            log.warning("conversation not read", code=error.code)
            run.degraded = True
            return []

    async def _remember(self, run: RunEvents, outcome: Outcome, *, talk: bool) -> None:
        """Add the turn to the conversation and keep the run; the answer was given, so a failure is only logged."""
        written = outcome.written
        turn = Turn(
            question=written.asked.question,
            standalone=written.asked.standalone,
            answer=written.text,
            kind=written.kind,
            faq_ids=written.citations,
            offered=tuple(offer.faq_id for offer in outcome.suggestions),
        )
        stores = self.services.stores
        try:
            if talk:
                await stores.conversations.append(run.session_id, turn)
            await stores.records.add(run.record(written))
        except StoreUnavailable as error:
            log.warning("conversation not written", code=error.code)


def _turn_of(session_id: str) -> str:
    """Return the lock's name of a conversation."""
    return f"session:{session_id}"
