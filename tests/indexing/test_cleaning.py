"""Cleaning: what a page's furniture leaves behind, and that no word of an answer is lost."""

import re
from pathlib import Path

import pytest
from conftest import REAL_FAQ
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_indexing.cleaning import clean, clean_all, clean_answer, split_tags, tidy_line
from smartstore_indexing.faq import FAQ, Catalog, RawFAQ, faq_id
from smartstore_indexing.loading import SAMPLE, load

FORM = "위 도움말이 도움이 되었나요?별 하나별 둘별 셋느낀 점을 적어 주세요.보내기"
LINKS = "관련 도움말/키워드\n\n\n\n봄 축제는 언제 열리나요?\n\n[단체] 축제 표를 여럿이 사려면?\n도움말 닫기"
FURNITURE = ("위 도움말이 도움이 되었나요", "도움말 닫기", "관련 도움말/키워드", "\xa0", "\u200b", "\ufeff", "\r", "\0")

FAQ_FILES = [path for path in (SAMPLE, REAL_FAQ) if path.exists()]  # the real FAQ is not in every checkout
RELATED_FOUND = {REAL_FAQ: (600, 613), SAMPLE: (350, 351)}  # at least so many of so many titles lead to an FAQ


def row(question: str = "질문", answer: str = "답", *, category: str = "", keyword: tuple[str, ...] = ()) -> RawFAQ:
    return RawFAQ(0, category, question, answer, keyword)


@pytest.mark.parametrize(
    ("scraped", "cleaned"),
    [
        pytest.param(f"표를 사 주세요.{FORM}", "표를 사 주세요.", id="rating form"),
        pytest.param(f"표를 사 주세요.\n\n \xa0{FORM}{LINKS}", "표를 사 주세요.", id="rating form and links"),
        pytest.param(f"표를 사 주세요.{FORM.replace(' ', chr(0xA0))}", "표를 사 주세요.", id="form with hard blanks"),
        pytest.param(f"표를 사 주세요.\n{LINKS}", "표를 사 주세요.", id="links without a form"),
        pytest.param("표를 사 주세요.도움말 닫기", "표를 사 주세요.", id="page end alone"),
        pytest.param(FORM, "", id="nothing but the form"),
        pytest.param(
            "\ufeff표\u200b를\xa0사\u3000주\u00ad세요\x07.", "표를 사 주세요.", id="invisible and hard blanks"
        ),
        pytest.param("첫 줄\r\n둘째 줄\r셋째 줄", "첫 줄\n\n둘째 줄\n\n셋째 줄", id="every line break"),
        pytest.param("첫 줄\n\n\n \n둘째 줄", "첫 줄\n\n둘째 줄", id="needless line breaks"),
        pytest.param(
            "이렇게 합니다.1) 문을 엽니다.2) 들어갑니다.3) 앉습니다.",
            "이렇게 합니다.\n\n1) 문을 엽니다.\n2) 들어갑니다.\n3) 앉습니다.",
            id="steps 1)",
        ),
        pytest.param(
            "이렇게 합니다.1. 문을 엽니다.2. 들어갑니다.",
            "이렇게 합니다.\n\n1. 문을 엽니다.\n2. 들어갑니다.",
            id="steps 1.",
        ),
        pytest.param("차례: ① 열기 ② 닫기", "차례:\n\n① 열기\n\n② 닫기", id="steps ①"),
        pytest.param("1단계: 열기 2단계: 닫기", "1단계: 열기\n\n2단계: 닫기", id="steps 1단계"),
        pytest.param(
            "가 방법 1) 열기 2) 닫기 나 방법 1) 밀기 2) 당기기",
            "가 방법\n\n1) 열기\n2) 닫기 나 방법\n1) 밀기\n2) 당기기",
            id="steps that begin again",
        ),
        pytest.param("준비물· 물· 우산", "준비물\n\n- 물\n- 우산", id="bullets ·"),
        pytest.param("준비합니다.·물과 우산", "준비합니다.\n\n- 물과 우산", id="bullet glued to a sentence"),
        pytest.param("준비물- 물- 우산", "준비물\n\n- 물\n- 우산", id="bullets -"),
        pytest.param("준비물 ㄴ 접는 우산", "준비물\n\n- 접는 우산", id="bullets ㄴ"),
        pytest.param("엽니다.※ 참고. 무료입니다.", "엽니다.\n\n※ 참고. 무료입니다.", id="note"),
        pytest.param("엽니다. !주의 미끄럽습니다.", "엽니다.\n\n!주의 미끄럽습니다.", id="warning"),
        pytest.param(
            "■ 때 봄입니다.■ 곳 강가입니다.▶ 값 무료", "■ 때 봄입니다.\n\n■ 곳 강가입니다.\n\n▶ 값 무료", id="headings"
        ),
        pytest.param("■ Case 1. 봄 ■ Case 2. 가을", "■ Case 1. 봄\n\n■ Case 2. 가을", id="numbered headings"),
        pytest.param("봄에 엽니다.가을에 닫습니다.", "봄에 엽니다.\n\n가을에 닫습니다.", id="glued sentences"),
        pytest.param("여기서 봅니다.[차림표]를 누르세요.", "여기서 봅니다.\n\n[차림표]를 누르세요.", id="glued link"),
        pytest.param("바로 가기 》 다음 안내", "바로 가기\n\n다음 안내", id="link's arrow"),
        pytest.param("봄에 엽니다.    가을에 닫습니다.", "봄에 엽니다.\n\n가을에 닫습니다.", id="spacer"),
        pytest.param("쓰는 말 예시1) 봄", "쓰는 말\n\n예시1) 봄", id="example"),
        pytest.param("·\n-\n※\n물", "물", id="marks without a text"),
    ],
)
def test_scraped_answer_reads_as_markdown(scraped: str, cleaned: str) -> None:
    assert clean_answer(scraped) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "취소·반품·교환은 가게에서 합니다.",
        "2023. 1. 31까지 받습니다.",
        "2023. 1. 31부터 2023. 2. 1까지 받습니다.",
        "2023.1.31~2023.2.1 동안 받습니다.",
        "값은 3.5%이고 낮으면 1.2%입니다.",
        "금액(1) 항목과 (2) 항목을 더합니다.",
        "가게(※ 분점 포함)와 [■ 본점]에서 합니다.",
        "전화는 02-123-4567입니다.",
        "오전 9시 - 오후 6시에 엽니다.",
        "1) 하나만 있는 번호는 목록이 아닙니다.",
        "10) 중간부터 세는 11) 번호도 아닙니다.",
        "www.example.com에서 봅니다.",
    ],
)
def test_what_only_looks_like_a_list_stays_on_its_line(text: str) -> None:
    assert clean_answer(text) == text


@pytest.mark.parametrize("mark", ["\xa0", " ", "\t", "\u3000", "다. ", "· ", "■", "1) 2) ", "[가]", "》"])
def test_cleaning_takes_no_time_that_grows_with_the_square_of_a_run(mark: str) -> None:
    # A run of 20,000 blanks took 5 s, and this one would take minutes: pytest's own limit ends it.
    cleaned = clean_answer((mark * 200_000)[:200_000])
    assert not re.search(r"[ \t\xa0\u3000]{2}", cleaned)


@pytest.mark.parametrize(
    ("title", "tags", "question"),
    [
        ("[개인] 언제 여나요?", ("개인",), "언제 여나요?"),
        ("[개인][단체 손님] 언제 여나요?", ("개인", "단체 손님"), "언제 여나요?"),
        ("[개인] [단체] 언제 여나요?", ("개인", "단체"), "언제 여나요?"),
        ("[개인] ★ 언제 여나요?", ("개인",), "언제 여나요?"),
        ("언제 [개인] 여나요?", (), "언제 [개인] 여나요?"),
        ("[공지]", (), "[공지]"),
        ("[] 언제 여나요?", (), "[] 언제 여나요?"),
    ],
)
def test_leading_tags_come_off_the_question(title: str, tags: tuple[str, ...], question: str) -> None:
    assert split_tags(title) == (tags, question)


def test_row_becomes_an_faq() -> None:
    faq = clean(
        row(
            "[단체]\xa0[개인] 언제\n여나요?\u200b ",
            f"봄에 엽니다.{FORM}{LINKS}",
            category="축제, 개인 ,",
            keyword=("어디서 여나요?", " "),
        )
    )
    assert faq.title == "[단체] [개인] 언제 여나요?"
    assert faq.question == "언제 여나요?"
    assert faq.categories == ("축제", "개인", "단체")
    assert faq.category == "축제 · 개인 · 단체"
    assert faq.answer == "봄에 엽니다."
    assert faq.related == ("어디서 여나요?", "봄 축제는 언제 열리나요?", "[단체] 축제 표를 여럿이 사려면?")


def test_id_names_the_question_as_spelled_and_version_what_is_shown() -> None:
    faq = clean(row("언제 여나요?", "봄에 엽니다."))
    assert faq.id == faq_id("언제 여나요?") != clean(row("언제 여나요? ")).id
    assert clean(row("언제 여나요?", f"봄에\xa0엽니다.\u200b{FORM}")) == faq
    changes = [
        row("언제 여나요?", "가을에 엽니다."),
        row("언제 여나요?", "봄에 엽니다.", category="축제"),
        row("언제 여나요?", "봄에 엽니다.", keyword=("어디서 여나요?",)),
    ]
    for changed in map(clean, changes):
        assert changed.id == faq.id
        assert changed.version != faq.version


def test_of_rows_with_the_same_question_the_last_one_wins_with_its_row() -> None:
    rows = [RawFAQ(0, "", "가", "처음", ()), RawFAQ(1, "", "나", "답", ()), RawFAQ(2, "", "가", "나중", ())]
    assert {(faq.row, faq.answer) for faq in clean_all(rows)} == {(1, "답"), (2, "나중")}


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


# ㄴ at the start of a line is a bullet of the help centre's, so it is no letter here.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="ㄴ")
MARKS = "엽니다.|닫아요.|1) |2) |3.|1. |① |② |1단계:|· |·|- |※ |■ |[가]|(나) |》|예시 1)|2023. 1. 31|02-123|가을"
BLANKS = [" ", "\n", "\r\n", "\xa0\xa0\xa0\xa0", "\u200b", "\ufeff"]
PIECES = st.sampled_from([*MARKS.split("|"), *BLANKS])
BODIES = st.lists(st.one_of(PIECES, st.text(CHARACTERS, max_size=8)), max_size=25).map("".join)
ENDS = st.sampled_from(["", FORM, FORM + LINKS, FORM.replace(" ", "\xa0"), FORM.replace(" ", "\u200b "), f"\n{LINKS}"])


@settings(max_examples=200, deadline=None)
@given(body=BODIES, end=ENDS)
def test_every_letter_of_the_body_survives_in_order_and_no_furniture_does(body: str, end: str) -> None:
    cleaned = clean_answer(body + end)
    assert letters(cleaned) == letters(body)
    assert letters(clean_answer(cleaned)) == letters(body)
    assert not [mark for mark in FURNITURE if mark in cleaned]


@settings(max_examples=200, deadline=None)
@given(
    text=st.lists(
        st.one_of(
            PIECES,
            st.text(max_size=5),
            st.sampled_from(["위 도움말이", "도움이 되었나요", "도움말", "닫기", "도움말 닫기", "관련 도움말/키워드"]),
        ),
        max_size=30,
    ).map("".join)
)
def test_no_order_of_the_furniture_gets_through(text: str) -> None:
    cleaned = clean_answer(text)
    assert not [mark for mark in FURNITURE if mark in cleaned and mark != "관련 도움말/키워드"]


@settings(max_examples=100, deadline=None)
@given(title=st.text(max_size=60))
def test_any_title_becomes_one_line_of_the_same_letters(title: str) -> None:
    line = tidy_line(title)
    assert len(line.splitlines()) <= 1
    assert letters(line) == letters(title)
    tags, question = split_tags(line)
    assert letters("".join(tags) + question) == letters(line)


@pytest.fixture(scope="module", params=FAQ_FILES, ids=lambda path: path.name)
def whole(request: pytest.FixtureRequest) -> tuple[Path, list[FAQ]]:
    return request.param, clean_all(load(request.param))


def test_no_furniture_is_left_in_a_whole_faq(whole: tuple[Path, list[FAQ]]) -> None:
    assert not [(faq.row, mark) for faq in whole[1] for mark in FURNITURE if mark in faq.answer + faq.title]
    assert all(faq.answer and faq.question for faq in whole[1])


def test_related_titles_of_a_whole_faq_lead_to_faqs(whole: tuple[Path, list[FAQ]]) -> None:
    path, faqs = whole
    least, titles = RELATED_FOUND[path]
    catalog = Catalog(faqs)
    assert sum(len(faq.related) for faq in faqs) == titles
    assert sum(len(catalog.related(faq)) for faq in faqs) >= least
