import re
from pathlib import Path

import pytest
from conftest import ModelServer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_models import QUESTION, answering, settings_with_model

from smartstore_indexing.faq import FAQ, faq_id
from smartstore_workflows import Chatbot
from smartstore_workflows.caching import recalled, remembered
from smartstore_workflows.events import AnswerWritten, Asked
from smartstore_workflows.supporting import checked, unsupported

# Made up, as everything here.
TOLD = """반품 배송비는 얼마인가요?
단순 변심이면 3,000원, 도서산간은 3만 5천 원이며 7일 이내에 신청합니다.
1. [판매관리 > 반품 관리]에서 신청합니다.
2. 영업일 기준 2~3일 안에 확인하고, 2024.03.05부터 수수료 3.5%를 뺍니다.
※ 오후 3시까지 고객센터(1588-0000)나 1:1 문의로, 사진은 5장, 10MB까지입니다. 상품관리 > 상품 등록 메뉴도 같습니다."""
WRITTEN_OTHERWISE = [
    ("3000원", "3,000원"),
    ("３，０００원", "3,000원"),
    ("3천원", "3,000원"),
    ("천 원", "1,000원"),
    ("3만 5천 원", "35,000원"),
    ("1억2천만원", "120,000,000원"),
    ("1.5만원", "15,000원"),
    ("5 %", "5퍼센트"),
    ("7일", "일주일"),
    ("일주일", "7일"),
    ("1주", "7일"),
    ("열흘", "10일"),
    ("한 달", "1개월"),
    ("12개월", "1년"),
    ("90분", "1.5시간"),
    ("3회", "3번"),
    ("1GB", "1024MB"),
    ("영업일 기준 3일", "3영업일"),
    ("3영업일", "3일(영업일) 이내"),
    ("3~5일", "3일에서 5일"),
    ("3일 또는 5일", "3∼5일"),
    ("2024년 3월 5일", "2024.03.05"),
    ("3월 5일", "2024-03-05"),
    ("2024년 3월", "'24. 3. 5"),
    ("3월 5일", "3/5"),
    ("09:00", "9:00"),
    ("[판매관리>반품관리]", "[판매관리 > 반품 관리]"),
    ("판매관리 ＞ 반품에서", "[판매관리 > 반품] 메뉴"),
    ("**판매관리 > 반품 관리** 메뉴", "'판매관리 > 반품 관리'"),
    ("[판매관리 > 반품 관리]", "센터의 판매관리 > 반품 관리 메뉴"),
]
DIFFERENT = [
    ("2주", "2일", ("2주",)),
    ("3영업일 이내", "3일 이내", ("3영업일",)),
    ("3일 이내", "3영업일 이내", ("3일",)),
    ("오후 3시", "오전 3시", ("오후 3시",)),
    ("3,000원", "13,000원", ("3,000원",)),
    ("3만 원", "3원", ("3만 원",)),
    ("5%", "5개", ("5%",)),
    ("2024년 4월 5일", "2024년 3월 5일, 2023년 4월 1일", ("2024년 4월 5일",)),
    ("3월 6일", "3월 5일", ("3월 6일",)),
    ("1588-0001", "1588-0000", ("1588-0001",)),
    ("1:2", "1:1", ("1:2",)),
    ("하루", "이틀", ("하루",)),
    ("[판매관리 > 반품 정책]", "[판매관리 > 반품 관리]", ("[판매관리 > 반품 정책]",)),
    ("[반품 관리 > 판매관리]", "[판매관리 > 반품 관리]", ("[반품 관리 > 판매관리]",)),
    ("정산관리 > 내역에서 3일", "정산관리 3일 내역", ("정산관리 > 내역에서",)),
    ("５０％는 2회, 5장, 50%는 ５０％", "3장", ("５０％", "2회", "5장", "50%")),
]
NO_CLAIMS = [
    "됩니다 [1]. 그리고 [2][3], [1, 2]",
    "1. 먼저\n2) 다음\n- 3) 그다음\n**4.** 끝\n  5단계 확인",
    "먼저 1) 접속하고 2) 누릅니다",
    "https://example.com/2024/7?page=3#9 과 www.example.com/8, sell.example.com/#/77을 보세요",
    "B2B, MP4와 STEP 2, FAQ 3",
    "-> 다음 <b>굵게</b>\n> 인용",
    "타이틀과 파이레츠, 한국 시간대, 일반 회원",
]


def faq(title: str, answer: str) -> FAQ:
    return FAQ(faq_id(title), "", 0, (), title, title, answer, ())


@pytest.mark.parametrize(("answer", "told"), WRITTEN_OTHERWISE)
def test_the_same_in_another_writing_is_supported(answer: str, told: str) -> None:
    assert unsupported(f"{answer} 안내드립니다. [1]", [f"안내: {told}."]) == ()


@pytest.mark.parametrize(("answer", "told", "missing"), DIFFERENT)
def test_what_differs_is_named_as_it_is_written(answer: str, told: str, missing: tuple[str, ...]) -> None:
    assert unsupported(f"{answer} 안내드립니다. [1]", [f"안내: {told}."]) == missing


@pytest.mark.parametrize("answer", NO_CLAIMS)
def test_what_claims_nothing_needs_no_support(answer: str) -> None:
    assert unsupported(answer, ["아무 말도 없습니다."]) == ()


def test_claims_are_named_in_their_order_and_each_once() -> None:
    answer = "9일 안에 8,000원, 다시 9일, [없는 메뉴 > 설정]에서 7% [1]"
    assert unsupported(answer, ["말이 없습니다."]) == ("9일", "8,000원", "[없는 메뉴 > 설정]", "7%")


def test_any_of_the_texts_may_say_it() -> None:
    assert unsupported("3일, 5만 원, 7개", ["3일", "50,000원"]) == ("7개",)


@given(st.lists(st.sampled_from(TOLD.splitlines()), max_size=6).map("\n".join))
def test_lines_of_an_faq_are_supported(answer: str) -> None:
    assert unsupported(f"{answer} [1]", [TOLD]) == ()


PIECES = [
    *(
        "3",
        "15",
        "1,000",
        "2024",
        "만",
        "천",
        "원",
        "일",
        "영업일",
        " 기준 ",
        "주",
        "월",
        "년",
        "시간",
        "%",
        "개",
        "일주일",
    ),
    *(
        " ",
        "\n",
        ".",
        ",",
        "~",
        "-",
        ":",
        "/",
        ">",
        "[",
        "]",
        "(",
        ")",
        "<",
        "하루",
        "오후 ",
        "판매",
        "반품에서",
        "a",
        "B2",
    ),
]


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.text()))
@example("1. 3일\n2. [가 > 나]")
def test_copied_text_is_supported(text: str) -> None:
    assert unsupported(text, ["다른 도움말", text]) == ()


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), max_size=3))
def test_what_is_named_stands_in_the_answer_and_once(answer: str, told: list[str]) -> None:
    missing = unsupported(answer, told)
    assert all(claim in answer and claim for claim in missing)
    assert len(set(missing)) == len(missing)


@settings(deadline=None)
@given(
    st.integers(1, 10**9).filter(lambda number: number not in {1, 2, 3, 5, 7, 10, 24, 2024, 3_000, 35_000}),
    st.sampled_from(["원", "개", "건", "명", "%", "글자", "", " 이상"]),
    st.sampled_from(["{}{}입니다.", "수수료는 {}{}", "값은 ({}{})", "**{}{}**", "약 {}{}까지 가능합니다 [1]"]),
    st.booleans(),
)
def test_number_that_is_nowhere_is_always_named(number: int, unit: str, sentence: str, commas: bool) -> None:
    written = f"{number:,}" if commas else str(number)
    (missing,) = unsupported(sentence.format(written, unit), [re.sub("1:1|1588-0000|[.]5%", "", TOLD)])
    assert missing == f"{written}{unit}".removesuffix(" 이상")


@pytest.mark.parametrize(
    "mark", ["1", "1,", "1.", "가>", "> ", "[", "[1,", "1만", "영업일 ", "1:", "a.", "\n- ", "'\"", "<", " "]
)
def test_long_text_of_one_mark_is_read_at_once(mark: str) -> None:
    unsupported(mark * 5_000, [mark * 5_000])  # the test's own timeout is the claim: a quadratic pattern takes minutes


def test_answer_is_held_against_the_faqs_that_it_cites() -> None:
    faqs = [faq("배송비", "3,000원입니다."), faq("반품 기한 7일", "이내입니다.")]
    assert checked("7일입니다 [2].", faqs) == ("7일입니다 [2].", (faqs[1].id,), ())
    assert checked("7일입니다 [1].", faqs) == ("7일입니다 [1].", (faqs[0].id,), ("7일",))
    assert checked("7일, 3천 원입니다 [2][1].", faqs).unsupported == ()


def test_answer_that_cites_nothing_is_held_against_all() -> None:
    faqs = [faq("배송비", "3,000원입니다."), faq("반품 기한", "7일 이내입니다.")]
    assert checked("7일, 3,000원, 5개 [9]", faqs) == ("7일, 3,000원, 5개 ", (), ("5개",))
    assert checked("3일입니다.", []).unsupported == ("3일",)


def test_answer_that_is_given_again_names_the_same() -> None:
    asked = Asked(question="얼마인가요?", standalone="얼마인가요?", model="openai")
    written = AnswerWritten(asked=asked, kind="answered", text="3일", unsupported=("3일",), passages=())
    assert recalled(remembered(written), asked).unsupported == ("3일",)


async def test_answer_event_and_record_name_what_no_cited_faq_says(
    bot: Chatbot, tmp_path: Path, model_server: ModelServer
) -> None:
    async with answering(bot, settings_with_model(tmp_path, model_server)) as talking:
        reply = await talking.ask(f"{QUESTION} [[reply: 가입비는 12,345원이고 77일 걸립니다 [1].]]")
        kept = await talking.services.stores.records.get(reply.run_id)
    assert reply.answer.unsupported == ("12,345원", "77일")
    assert kept is not None
    assert kept.unsupported == reply.answer.unsupported
    assert (await bot.ask(QUESTION)).answer.unsupported == ()
