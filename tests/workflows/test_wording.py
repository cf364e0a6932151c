import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartstore_indexing.cleaning import clean_all
from smartstore_indexing.loading import SAMPLE, load
from smartstore_workflows.events import Kind
from smartstore_workflows.wording import NOT_FOUND, REFUSAL, offer, unsupported_note

KINDS: list[Kind] = ["answered", "refused", "not_found"]
CLOSINGS: dict[Kind, str] = {
    "answered": "안내해 드릴까요?",
    "not_found": "안내해 드릴까요?",
    "refused": "궁금하신가요?",
}
# An FAQ's question, and the clause that its offer begins with.
CLAUSES = {
    "나요": ("정산은 언제 되나요?", "정산은 언제 되는지"),
    "하나요": ("반품은 어떻게 접수하나요?", "반품은 어떻게 접수하는지"),
    "있나요": ("등록할 수 없는 상품이 있나요?", "등록할 수 없는 상품이 있는지"),
    "없나요": ("취소할 수는 없나요?", "취소할 수는 없는지"),
    "past": ("주문이 왜 취소되었나요?", "주문이 왜 취소되었는지"),
    "한가요": ("음식도 스토어 등록이 가능한가요?", "음식도 스토어 등록이 가능한지"),
    "인가요": ("정산 주기는 며칠인가요?", "정산 주기는 며칠인지"),
    "건가요": ("수수료가 오른 건가요?", "수수료가 오른 건지"),
    "뭔가요": ("빠른정산이 뭔가요?", "빠른정산이 뭔지"),
    "른가요": ("두 등급은 어떻게 다른가요?", "두 등급은 어떻게 다른지"),
    "adjective with a final": ("어떤 점이 좋나요?", "어떤 점이 좋은지"),
    "adjective without": ("무엇이 다르나요?", "무엇이 다른지"),
    "adjective in 하": ("번역본 제출이 필요하나요?", "번역본 제출이 필요한지"),
    "no question mark": ("정산은 언제 되나요", "정산은 언제 되는지"),
    "full stop": ("정산은 언제 되나요.", "정산은 언제 되는지"),
    "several marks": ("정산은 언제 되나요?!", "정산은 언제 되는지"),
    "parenthesis": ("사업자 유형을 바꾸려면 어떻게 하나요? (개인 → 법인)", "사업자 유형을 바꾸려면 어떻게 하는지"),
    "dot inside": ("API 2.0은 어디서 신청하나요?", "API 2.0은 어디서 신청하는지"),
}
QUOTED = {
    "까요": ("제가 가입할 수 있을까요?", "제가 가입할 수 있을까요?"),
    "statement": ("상품 등록이 되지 않습니다.", "상품 등록이 되지 않습니다"),
    "topic": ("지식재산권 침해 신고", "지식재산권 침해 신고"),
    "two sentences": ("상품이 안 보입니다. 왜 그런가요?", "상품이 안 보입니다. 왜 그런가요?"),
    "two questions": ("제휴란 무엇인가요? 어떻게 하나요?", "제휴란 무엇인가요? 어떻게 하나요?"),
    "가요 without ㄴ": ("주문은 어디로 가요?", "주문은 어디로 가요?"),
    "parenthesis": ("발송 지연 안내 (판매자용)", "발송 지연 안내"),
}


def test_refusal_is_word_for_word_that_of_the_task() -> None:
    assert REFUSAL == "저는 스마트 스토어 FAQ를 위한 챗봇입니다. 스마트 스토어에 대한 질문을 부탁드립니다."


def test_not_found_says_so_and_what_to_do_next() -> None:
    assert "찾지 못했습니다" in NOT_FOUND
    assert "고객센터" in NOT_FOUND
    assert NOT_FOUND.endswith("요.")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("question", "clause"), CLAUSES.values(), ids=CLAUSES)
def test_question_becomes_a_clause_of_the_offer(question: str, clause: str, kind: Kind) -> None:
    assert offer(question, kind) == f"{clause} {CLOSINGS[kind]}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("question", "quoted"), QUOTED.values(), ids=QUOTED)
def test_what_is_no_such_question_is_quoted(question: str, quoted: str, kind: Kind) -> None:
    assert offer(question, kind) == f"‘{quoted}’에 대해 {CLOSINGS[kind]}"


def test_bridge_of_the_task_reads_as_the_task_has_it() -> None:
    assert offer("음식도 스토어 등록이 가능한가요?", "refused") == "음식도 스토어 등록이 가능한지 궁금하신가요?"


@given(st.text(), st.sampled_from(KINDS))
def test_any_title_becomes_an_offer(question: str, kind: Kind) -> None:
    text = offer(question, kind)
    assert text.endswith(CLOSINGS[kind])
    assert text != CLOSINGS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_offer_of_the_sample_is_one_question(kind: Kind) -> None:
    offers = [offer(faq.question, kind) for faq in clean_all(load(SAMPLE))]
    assert all(text.endswith(("지 " + CLOSINGS[kind], "’에 대해 " + CLOSINGS[kind])) for text in offers)
    assert [text for text in offers if text.count("?") > 1 and "‘" not in text] == []
    assert len(set(offers)) == len(offers)


@pytest.mark.parametrize(
    ("claims", "ending"),
    [(["3일"], ": ‘3일’"), (["3일", "5,000원", "메뉴 > 정산", "9월"], ": ‘3일’, ‘5,000원’, ‘메뉴 > 정산’ 외 1개")],
)
def test_claims_without_support_are_named_and_the_original_is_pointed_to(claims: list[str], ending: str) -> None:
    assert unsupported_note(claims) == f"도움말에서 확인되지 않은 내용이 있으니 원문을 확인해 주세요{ending}"
