"""What a question means within its conversation. Pure.

A question that leans on the conversation (follow_ups.py tells) is joined to the one before it.
"""

import re
import unicodedata
from collections.abc import Sequence

from smartstore_indexing.cleaning import CONTROL
from smartstore_indexing.errors import InvalidRequest
from smartstore_workflows.events import Asked, Turn

MAX_CHARACTERS = 2_000
MAX_SESSION_ID = 200
BEFORE_CHARACTERS = 80  # of the question before, in the text that is embedded; its answer there finds no more
SURROGATE = re.compile(r"[\ud800-\udfff]")
# Letters and digits, as ranges that every dialect of regular expressions reads alike: the API's contract has them too.
# The Hangul fillers (U+115F, U+1160, U+3164, U+FFA0), which show as a blank, are none.
LETTER = (
    "[0-9A-Za-z\u00c0-\u02af\u0370-\u115e\u1161-\u1fff\u2460-\u24ff\u3041-\u3096\u30a1-\u30fa\u3105-\u312f\u3131-\u3163\u3400-\u4dbf"
    "\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uf900-\ufaff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9d]"
)
PLEASE = r"(?:줘요?|주세요|주십시오|주시겠어요|주실래요|줄래요?)"
REQUEST = (
    rf"(?:좀\s*)?(?:(?:알려|말해|말씀해|보여|가르쳐)\s*{PLEASE}|궁금(?:해요?|합니다)"
    rf"|(?:(?:안내|설명|답변)[도을를]?\s*)?(?:좀\s*)?(?:해\s*{PLEASE}|부탁(?:해요?|합니다|할게요?|드려요?|드립니다|드릴게요)?))"
)
# A plain yes to an offer: 네, 응 알려줘, 그래 부탁해요, 안내해 주세요. Nothing else may stand beside it.
YES = re.compile(
    r"(?:(?:네+|넵+|넹|예+|응+|웅|어+|그래요?|좋아요?|좋습니다|ㅇㅇ|ㅇㅋ|오케이|ok|yes)"
    rf"(?:[\s,.!~^]*{REQUEST})?|{REQUEST})[\s.!~^ㅎㅋ]*",
    re.IGNORECASE,
)


def checked_question(text: str) -> str:
    """Return the question as it is worked with: outer blanks and control characters gone.

    Raises:
        InvalidRequest: it is empty, longer than 2,000 characters, or holds no letter or digit, or broken characters.
    """
    if SURROGATE.search(text):
        raise InvalidRequest("읽을 수 없는 글자가 들어 있습니다. 질문을 다시 입력해 주세요.")
    question = unicodedata.normalize("NFC", CONTROL.sub("", text)).strip()
    if not question:
        raise InvalidRequest("질문이 비어 있습니다. 궁금한 점을 입력해 주세요.")
    if len(question) > MAX_CHARACTERS:
        raise InvalidRequest(
            f"질문은 {MAX_CHARACTERS:,}자까지 입력할 수 있습니다 (지금 {len(question):,}자). "
            "조금 줄여서 다시 질문해 주세요."
        )
    if not re.search(LETTER, question):
        raise InvalidRequest("글자가 없는 질문은 이해할 수 없습니다. 궁금한 점을 글로 입력해 주세요.")
    return question


def checked_session_id(session_id: str | None) -> str | None:
    """Return the session id; InvalidRequest when it is longer than 200 characters or holds broken ones."""
    if session_id is not None and (len(session_id) > MAX_SESSION_ID or SURROGATE.search(session_id)):
        raise InvalidRequest("대화 ID를 읽을 수 없습니다. 대화 ID를 확인해 주세요.")
    return session_id


def accepts_offer(question: str, history: Sequence[Turn]) -> str | None:
    """Return the FAQ id of the first offer of the last turn when the question is a plain yes to it."""
    if not history or not history[-1].offered or not YES.fullmatch(question):
        return None
    return history[-1].offered[0]


def topic(history: Sequence[Turn]) -> Turn | None:
    """Return the turn that a follow-up would lean on: the last that was not refused."""
    return next((turn for turn in reversed(history) if turn.kind != "refused"), None)


def joined(before: Turn, question: str) -> str:
    """Return the text that is embedded for a question that leans on a turn, in the form the encoder was trained on."""
    return f"{before.standalone[-BEFORE_CHARACTERS:]} | {question}"


def searched(asked: Asked) -> str:
    """Return the text that is searched for what is asked."""
    return joined(asked.before, asked.question) if asked.before else asked.standalone


def stand_alone(question: str, before: Turn) -> str:
    """Return a question with the one that it leans on, at most 2,000 characters.

    Follow-ups of follow-ups grow; what is cut then is their beginning.
    """
    return f"{before.standalone} {question}"[-MAX_CHARACTERS:].lstrip()
