"""One answer on the page: the wire's events become Chainlit's steps, a message, and what stands under it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import chainlit as cl
from chainlit.utils import utc_now

from smartstore_indexing.errors import UnknownResource
from smartstore_indexing.settings import EXTRACTIVE
from smartstore_ui.chat.markdown import escaped, linked
from smartstore_workflows import Chatbot
from smartstore_workflows.wire import CANCELLED
from smartstore_workflows.wording import unsupported_note

AUTHOR = {"avatarName": "assistant"}
STAGES = {
    "understand": "질문 이해",
    "filter": "범위 확인",
    "retrieve": "FAQ 검색",
    "synthesize": "답변 작성",
    "suggest": "추천 질문",
}
STOPPED = "답변을 멈췄습니다."
BROKEN_OFF = "여기까지 쓰다가 끊겼습니다."
FROM_FAQ = "FAQ 그대로"
UNCITED = 3  # cards under an answer that cites none


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked on the page; with `faq_id` a chosen follow-up."""

    question: str
    faq_id: str | None = None

    def again(self) -> dict[str, str | None]:
        """Return what the retry button sends."""
        return {"question": self.question, "faq_id": self.faq_id}


class AnswerView:
    """Shows one run; `show` takes its events in order."""

    def __init__(self, *, bot: Chatbot, asked: Asked, run_step: cl.Step, said: cl.Message | None = None) -> None:
        """Show the answer inside a run step that stands on the page, `said` before it where a button asked."""
        self.answer: dict[str, Any] = {}
        self.suggestions: list[dict[str, str]] = []
        self._bot = bot
        self._asked = asked
        self._run_step = run_step
        self._standing: list[cl.Message | cl.Step | cl.CustomElement] = [*([said] if said else []), run_step]
        self._stages = StageSteps(run_step, self._standing)
        self._message: cl.Message | None = None
        self._sources: list[dict[str, Any]] = []
        self._model = EXTRACTIVE
        self._failure: dict[str, Any] = {}

    async def show(self, event: str, data: Any) -> None:
        """Show an event of the wire format."""
        match event:
            case "started":
                self._model = data["model"]
                self._run_step.metadata["run_id"] = data["run_id"]
            case "stage":
                await self._stages.begin(data["stage"])
            case "sources":
                self._sources = data
            case "token":
                await self._stages.fold()
                await self._say(escaped(data["text"], of_model=self._of_model))
            case "restart":
                await self._clear()
            case "answer":
                self.answer = data
            case "suggestions":
                self.suggestions = data
            case "error":
                self._failure = data
            case "done":
                await self._stages.end(data["timings_ms"])
                await self._finish()

    async def fail(self, message: str, *, retryable: bool) -> None:
        """Say what went wrong, and offer to try again."""
        await self._stages.end({})
        shown = cl.Message(escaped(message, of_model=False), metadata=AUTHOR)
        shown.is_error = True
        await self._send(shown)
        if retryable:
            await self._put_under(shown, retry=self._asked.again())

    async def show_again(self) -> None:
        """Send all that stands there: a page whose connection was lost may have missed some of it."""
        emitter = cl.context.emitter
        await emitter.emit(
            "first_interaction", {"interaction": self._asked.question, "thread_id": cl.context.session.thread_id}
        )
        for shown in self._standing:
            if isinstance(shown, cl.CustomElement):
                await emitter.send_element(shown.to_dict())
            else:
                await emitter.send_step(shown.to_dict())

    @property
    def _of_model(self) -> bool:
        return self._model != EXTRACTIVE

    async def _say(self, text: str) -> None:
        if self._message is None:
            self._message = await self._send(cl.Message(text, metadata=AUTHOR))
        else:
            await self._message.stream_token(text)

    async def _clear(self) -> None:
        if self._message is not None:
            self._message.content = ""
            await self._message.update()

    async def _finish(self) -> None:
        if self.answer:
            await self._complete()
        elif self._failure.get("code") == CANCELLED:
            await self._stopped()
        else:
            if self._message is not None:
                self._message.content += f"\n\n_{BROKEN_OFF}_"
                await self._message.update()
            await self.fail(self._failure["message"], retryable=self._failure["retryable"])

    async def _complete(self) -> None:
        message = self._message or await self._send(cl.Message("", metadata=AUTHOR))
        of_model = self.answer["model"] != EXTRACTIVE
        message.content = linked(self.answer["text"], of_model=of_model, sources=len(self._sources))
        await message.update()
        await self._put_under(
            message,
            sources=await self._cards(),
            follow_ups=list(self.suggestions),
            notes=self._notes(of_model=of_model),
        )

    async def _stopped(self) -> None:
        message = self._message or await self._send(cl.Message(STOPPED, metadata=AUTHOR))
        await message.update()
        await self._put_under(message, retry=self._asked.again(), notes=[STOPPED] if self._message else [])

    async def _cards(self) -> list[dict[str, Any]]:
        """Return the cited sources, or where none is cited the best, with their whole answers.

        Those that have left the index since are passed over.
        """
        cited = [source for source in self._sources if source["id"] in self.answer["citations"]]
        cards = []
        for source in cited or self._sources[:UNCITED]:
            try:
                faq = await self._bot.faq(source["id"])
            except UnknownResource:
                continue
            cards.append(
                {
                    "n": source["n"],
                    "category": source["category"],
                    "question": source["question"],
                    "answer": escaped(faq.answer, of_model=False),
                }
            )
        return cards

    def _notes(self, *, of_model: bool) -> list[str]:
        notes = [f"{self.answer['model']} 모델" if of_model else FROM_FAQ]
        if self._of_model and not of_model:
            notes.append("지금 모델을 쓸 수 없어 FAQ에서 그대로 답했습니다")
        elif self.answer["model"] != self._model:
            notes.append(f"지금 {self._model} 모델을 쓸 수 없어 다른 모델이 답했습니다")
        elif self.answer["degraded"]:
            notes.append("앞의 대화를 불러오지 못해 이 질문만 보고 답했습니다")
        if self.answer["unsupported"]:
            notes.append(unsupported_note(self.answer["unsupported"]))
        return notes

    async def _send(self, message: cl.Message) -> cl.Message:
        self._standing.append(message)
        await message.send()
        return message

    async def _put_under(
        self,
        message: cl.Message,
        *,
        sources: Sequence[Mapping[str, Any]] = (),
        follow_ups: Sequence[Mapping[str, str]] = (),
        retry: Mapping[str, str | None] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Put cards, buttons and notes under a message; the element's page is page_files/public/elements."""
        props = {"sources": sources, "follow_ups": follow_ups, "retry": retry, "notes": notes}
        footer = cl.CustomElement(name="AnswerFooter", props=props, display="inline")
        footer.chainlit_key, footer.updatable = footer.id, False  # else its props are written to a file as well
        self._standing.append(footer)
        await footer.send(for_id=message.id)


class StageSteps:
    """The stages of an answer as steps below one that folds up; they are shown, not kept."""

    def __init__(self, run_step: cl.Step, standing: list[cl.Message | cl.Step | cl.CustomElement]) -> None:
        """Stand in a run step, and note in `standing` what was sent."""
        self._whole = cl.Step(
            name="답변을 준비하고 있습니다",
            type="tool",
            parent_id=run_step.id,
            default_open=True,
            auto_collapse=True,
            icon="list-checks",
        )
        self._stages: dict[str, cl.Step] = {}
        self._standing = standing

    async def begin(self, stage: str) -> None:
        """Show a stage that begins; it ends those before it, but filter and retrieve run side by side."""
        if not self._stages:
            self._whole.start = utc_now()
            self._standing.append(self._whole)
            await cl.context.emitter.send_step(self._whole.to_dict())
        if not (stage in ("filter", "retrieve") and self._stages.keys() & {"filter", "retrieve"}):
            await self._end_stages()
        step = cl.Step(name=STAGES[stage], type="tool", parent_id=self._whole.id)
        step.start = utc_now()
        self._stages[stage] = step
        self._standing.append(step)
        await cl.context.emitter.send_step(step.to_dict())

    async def fold(self) -> None:
        """Fold up, the first time: the answer begins."""
        if self._stages and self._whole.end is None:
            self._whole.end = utc_now()
            self._whole.name = "답변 과정"
            await cl.context.emitter.update_step(self._whole.to_dict())

    async def end(self, timings_ms: Mapping[str, float]) -> None:
        """End all, and say how long each took."""
        await self.fold()
        await self._end_stages()
        for stage in timings_ms.keys() & self._stages.keys():
            step = self._stages[stage]
            step.name = f"{STAGES[stage]} ({timings_ms[stage] / 1000:.2f}초)"
            await cl.context.emitter.update_step(step.to_dict())

    async def _end_stages(self) -> None:
        for step in self._stages.values():
            if step.end is None:
                step.end = utc_now()
                await cl.context.emitter.update_step(step.to_dict())
