"""What the bot says in its own words; everything else it says comes from the FAQ or the model. Pure."""

import re
from collections.abc import Sequence

from smartstore_workflows.events import Kind

# Word for word from the original task.
REFUSAL = "저는 스마트 스토어 FAQ를 위한 챗봇입니다. 스마트 스토어에 대한 질문을 부탁드립니다."
NOT_FOUND = (
    "죄송합니다. 문의하신 내용은 FAQ에서 찾지 못했습니다. "
    "비슷한 도움말을 함께 안내해 드리니 확인해 주시고, "
    "원하시는 내용이 없으면 스마트스토어센터 고객센터로 문의해 주세요."
)

NAMED_CLAIMS = 3
PARENTHESIS = re.compile(r"\s*\([^()]*\)\s*$")
NIEUN = 4  # ㄴ among the finals
# Stems that take 은 or ㄴ before 지, not 는.
ADJECTIVE = re.compile(r"(?:[좋같높낮많작크]|[다빠]르|느리|비싸|(?:필요|가능|중요|정확)하)$")


def unsupported_note(claims: Sequence[str]) -> str:
    """Return what a reader is told of an answer's claims that no FAQ supports which it cites; at least one."""
    named = ", ".join(f"‘{claim}’" for claim in claims[:NAMED_CLAIMS])
    more = f" 외 {len(claims) - NAMED_CLAIMS}개" if len(claims) > NAMED_CLAIMS else ""
    return f"도움말에서 확인되지 않은 내용이 있으니 원문을 확인해 주세요: {named}{more}"


def offer(question: str, kind: Kind) -> str:
    """Return an FAQ's question as an offer, or after a refusal as a guess at what was meant.

    "서류가 필요한가요?" becomes "서류가 필요한지 안내해 드릴까요?"; what is no such question is quoted.
    """
    whole = PARENTHESIS.sub("", question).rstrip(" .~")
    closing = "궁금하신가요?" if kind == "refused" else "안내해 드릴까요?"
    clause = _clause(whole.rstrip(" ?!"))
    return f"{clause} {closing}" if clause else f"‘{whole}’에 대해 {closing}"


def _clause(stem: str) -> str:
    """Return a question as a clause that ends in 지, "" where that cannot be told by its ending."""
    if re.search(r"[.?!]\s", stem):
        return ""  # several sentences read better quoted
    if re.search(r"\S나요$", stem):  # "오류가 나요" is no question
        asked = stem[:-2]
        return _with_nieun(asked) + "지" if ADJECTIVE.search(asked) else asked + "는지"
    if re.search(r"[가-힣]가요$", stem) and _final(stem[-3]) == NIEUN:
        return stem[:-2] + "지"
    return ""


def _with_nieun(word: str) -> str:
    """Return a stem with the ending ㄴ, or 은 where it ends in a consonant: 다르 becomes 다른, 좋 becomes 좋은."""
    return word + "은" if _final(word[-1]) else word[:-1] + chr(ord(word[-1]) + NIEUN)


def _final(syllable: str) -> int:
    """Return the place of a Hangul syllable's final among Unicode's 28, of which 0 is none."""
    return (ord(syllable) - 0xAC00) % 28
