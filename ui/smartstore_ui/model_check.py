"""`smartstore doctor --model`: what a configured model does rightly and wrongly, by a few real calls to it."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from smartstore_indexing.errors import ModelUnavailable, UnknownModel
from smartstore_indexing.faq import FAQ, FaqId
from smartstore_indexing.settings import load_settings
from smartstore_ui.findings import Finding, shown
from smartstore_workflows.events import Usage
from smartstore_workflows.model_calls import Writes
from smartstore_workflows.models import Models
from smartstore_workflows.prompting import answer_messages, cited_numbers
from smartstore_workflows.supporting import unsupported
from smartstore_workflows.thinking import CLOSING, OPENING

CALL_SECONDS = 6.0  # of silence in one call, which ends the check
TOTAL_SECONDS = 17.0  # the program's start and end included it takes no more than 20 s
OBEYED = "확인"
KOREAN = 0.5  # of the letters of an answer that is Korean, at the least; menu names may be Latin
NOT_THERE = "확인되지 않"


def _faq(question: str, answer: str) -> FAQ:
    named = {"title": question, "question": question, "answer": answer}
    return FAQ(id=FaqId(question), version="", row=0, categories=(), related=(), **named)


FAQS = (
    _faq("정산은 언제 되나요?", "구매확정 다음 날부터 2영업일째에 정산됩니다."),
    _faq("묶음배송은 어디서 정하나요?", "[상품관리 > 배송정보 관리]에서 정합니다."),
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said, in how many pieces, and after how many milliseconds it began."""

    text: str
    pieces: int
    first_ms: float


def run_model_check(name: str) -> int:
    """Print what is found of the model of a name; return 0 when all is fine, else 1.

    Raises:
        UnknownModel: no model of that name is configured.
    """
    return asyncio.run(_checked(name))


async def _checked(name: str) -> int:
    models = Models.of(load_settings())
    try:
        model = models.get(name)
        if model is None:
            can = ", ".join(models.names[1:]) or "없음"
            raise UnknownModel(f"모델 {name}은(는) 설정되어 있지 않습니다. 설정된 모델: {can}")
        sys.stdout.write(f"모델 {name} ({model.name})에 몇 가지를 물어봅니다.\n")
        return await shown(_findings(model))
    finally:
        await models.close()


async def _findings(model: Writes) -> AsyncGenerator[Finding, None]:
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            obeyed = await _said(model, _instructed())
            told = await _said(model, [ChatMessage("스마트스토어를 세 문장으로 소개해 주세요.")])
            yield Finding("연결", True, f"첫 토큰까지 {told.first_ms:.0f}ms")
            yield _about_streaming(told)
            yield _about_roles(obeyed)
            yield _about_thinking(obeyed)
            yield _about_answer(await _said(model, answer_messages("정산은 며칠 뒤에 되나요?", FAQS, ())))
            yield _about_gap(await _said(model, answer_messages("해외 배송은 어떻게 하나요?", FAQS, ())))
    except ModelUnavailable as error:
        yield Finding("호출", False, error.message)
    except TimeoutError:
        yield Finding("호출", False, f"모델 {model.name}이(가) 제한 시간 안에 답하지 않았습니다.")


def _instructed() -> list[ChatMessage]:
    rule = f"사용자가 무엇을 묻든 '{OBEYED}' 두 글자로만 답하세요."
    return [ChatMessage(rule, role=MessageRole.SYSTEM), ChatMessage("1 더하기 1은 얼마인가요?")]


def _about_streaming(said: Said) -> Finding:
    told = f"{said.pieces}조각으로 나뉘어 왔습니다"
    return Finding("스트리밍", said.pieces > 1, told if said.pieces > 1 else "답이 한꺼번에 왔습니다")


def _about_roles(said: Said) -> Finding:
    fine = OBEYED in said.text and len(said.text) < 5 * len(OBEYED)
    return Finding("역할", fine, "시스템 지시를 따릅니다" if fine else f"시스템 지시를 따르지 않습니다: {_short(said)}")


def _about_thinking(said: Said) -> Finding:
    if OPENING not in said.text and CLOSING not in said.text:
        return Finding("생각", True, "생각하는 글이 답에 섞이지 않습니다")
    return Finding("생각", False, "생각하는 글을 먼저 씁니다. 보이지 않게 지우지만 그만큼 첫 글자가 늦습니다")


def _about_answer(said: Said) -> Finding:
    letters = [letter for letter in said.text if letter.isalpha()]
    wrong = []
    if sum("가" <= letter <= "힣" for letter in letters) < KOREAN * max(1, len(letters)):
        wrong.append("한국어가 아닙니다")
    if cited_numbers(said.text, len(FAQS)) != [1]:
        wrong.append("출처 [1]을 달지 않았습니다")
    if claims := unsupported(said.text, [faq.answer for faq in FAQS]):
        wrong.append(f"FAQ에 없는 내용이 있습니다({', '.join(claims)})")
    return Finding("근거 있는 답", not wrong, ", ".join(wrong) or _short(said))


def _about_gap(said: Said) -> Finding:
    fine = NOT_THERE in said.text
    return Finding("없는 내용", fine, "FAQ에 없다고 말합니다" if fine else f"없다고 말하지 않습니다: {_short(said)}")


async def _said(model: Writes, messages: Sequence[ChatMessage]) -> Said:
    """Return what the model says; raises ModelUnavailable, and TimeoutError when it is silent for too long."""
    started, first, said = time.perf_counter(), 0.0, list[str]()
    async with aclosing(model.stream(messages, thinking=True)) as pieces:
        while True:
            async with asyncio.timeout(CALL_SECONDS):
                piece = await anext(pieces, None)
            if piece is None:
                return Said("".join(said), len(said), first)
            if not isinstance(piece, Usage):
                first = first or (time.perf_counter() - started) * 1000
                said.append(piece)


def _short(said: Said, length: int = 60) -> str:
    text = " ".join(said.text.split())
    return text if len(text) <= length else text[:length] + "…"
