"""Follow-ups told from new topics by the shipped model, over the shipped encoder."""

import json
from pathlib import Path

import numpy as np
import pytest

from smartstore_indexing.embedding import DIMENSIONS, E5Embedding
from smartstore_workflows.events import Turn
from smartstore_workflows.follow_ups import LEAST, FollowUpModel, follow_up_features
from smartstore_workflows.understanding import joined

BEFORE = Turn(question="정산은 언제 되나요?", standalone="정산은 언제 되나요?", answer="답", kind="answered")
FOLLOW_UPS = [
    *(
        "그럼 서류는요?",
        "그러면 얼마나 걸려요?",
        "그건 어디서 해요?",
        "그거 취소할 수 있어요?",
        "거기서 수정도 되나요?",
        "교환일 때는요?",
    ),
    *(
        "해외는요?",
        "수수료는요?",
        "개인 판매자도요?",
        "반려되면요?",
        "법인인 경우는요?",
        "앱에서는요?",
        "만약 늦으면 어떻게 돼요?",
    ),
    *(
        "둘 다 필요한가요?",
        "근데 오늘 건 왜 안 나와요?",
        "그런데 언제부터 적용돼요?",
        "이건 무료인가요?",
        "아까 말한 메뉴가 안 보여요",
    ),
    *(
        "그때 수수료도 돌려받나요?",
        "그 다음은 뭘 해요?",
        "반대로 판매자가 취소하면 어떻게 되나요?",
        "또 필요한 게 있나요?",
    ),
]
NEW_TOPICS = [
    *("정산은 언제 되나요?", "미성년자도 가입할 수 있나요?", "쿠폰은 어디서 만들어요?", "스토어 이름을 바꾸고 싶어요"),
    *(
        "건강기능식품 판매 권한은 어디서 신청하나요?",
        "쌀을 팔 때 부가세 항목은 면세로 골라야 하나요?",
        "반품 배송비는 누가 내나요",
    ),
    *(
        "상품이 검색에 안 나와요",
        "빠른정산이 뭔가요?",
        "그림을 팔려면 어떤 허가가 필요해요?",
        "그릇을 팔고 싶은데 카테고리가 뭐예요?",
    ),
    *("주문이 많아요", "오늘 저녁 맛집 추천해 줄래?", "송장번호 입력 방법", "또래오래 상표를 써도 되나요?"),
]
MULTITURN = Path(__file__).parent.parent / "data" / "sample_multiturn.jsonl"


@pytest.fixture(scope="module")
def e5() -> E5Embedding:
    return E5Embedding()


def odds(e5: E5Embedding, question: str, before: Turn = BEFORE) -> float:
    alone, within = (np.array(e5.get_query_embedding(text)) for text in (question, joined(before, question)))
    return FollowUpModel.shipped().model.log_odds(follow_up_features(alone, within))


def test_nearly_all_follow_ups_lean(e5: E5Embedding) -> None:
    missed = [question for question in FOLLOW_UPS if odds(e5, question) < LEAST]
    assert len(missed) <= 0.05 * len(FOLLOW_UPS), missed


def test_new_topics_lean_less_than_follow_ups(e5: E5Embedding) -> None:
    leaning, alone = ([odds(e5, question) for question in questions] for questions in (FOLLOW_UPS, NEW_TOPICS))
    assert np.mean([[more > less for more in leaning] for less in alone]) >= 0.9  # the area under the curve


def test_conversations_of_the_sample_are_told_apart(e5: E5Embedding) -> None:
    lines = [json.loads(line) for line in MULTITURN.read_text(encoding="utf-8").splitlines()]
    found: dict[bool, list[bool]] = {True: [], False: []}
    for line in lines:
        asked = [message["content"] for message in line["history"] if message["role"] == "user"][-1]
        before = BEFORE.model_copy(update={"question": asked, "standalone": asked})
        found[line["query"] != line["standalone"]].append(odds(e5, line["query"], before) >= LEAST)
    assert np.mean(found[True]) >= 0.95
    assert np.mean(found[False]) <= 0.4


def test_features_are_the_vector_and_how_far_the_question_before_moves_it() -> None:
    alone, within = np.ones(DIMENSIONS), np.full(DIMENSIONS, 3.0)
    assert follow_up_features(alone, within).tolist() == [1.0] * DIMENSIONS + [2.0] * DIMENSIONS
