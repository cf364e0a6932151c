"""An FAQ as two nodes, and back."""

from hypothesis import given
from hypothesis import strategies as st

from smartstore_indexing.cleaning import clean
from smartstore_indexing.faq import FAQ, Catalog, RawFAQ
from smartstore_indexing.nodes import (
    EMBEDDED_CHARACTERS,
    PARTS,
    SEARCHED_CHARACTERS,
    NodeParts,
    embedded_text,
    node_id,
    parse_node_id,
    searched_text,
    to_faq,
    to_node,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)
FAQS = st.builds(
    RawFAQ,
    row=st.integers(0, 10_000),
    category=TEXTS,
    question=TEXTS,
    answer=TEXTS,
    keyword=st.lists(TEXTS, max_size=3).map(tuple),
).map(clean)
PARTS_OF_A_NODE = NodeParts([0.6, 0.8], "언제 열다")


def faq(question: str, answer: str) -> FAQ:
    return clean(RawFAQ(3, "축제", question, answer, ("다른 제목",)))


@given(faq=FAQS)
def test_answer_node_holds_the_whole_faq(faq: FAQ) -> None:
    node = to_node(faq, "answer", PARTS_OF_A_NODE)
    assert to_faq({**node.metadata, "text": node.text}) == faq


@given(faq=FAQS)
def test_node_ids_name_the_faq_and_the_part(faq: FAQ) -> None:
    assert [parse_node_id(node_id(faq.id, part)) for part in PARTS] == [(faq.id, part) for part in PARTS]
    assert [to_node(faq, part, PARTS_OF_A_NODE).id_ for part in PARTS] == [f"{faq.id}-question", f"{faq.id}-answer"]


def test_node_carries_its_vector_its_morphemes_and_its_source() -> None:
    opening = faq("[단체] 언제 여나요?", "봄에 엽니다.")
    for part, text in zip(PARTS, ("[단체] 언제 여나요?", "봄에 엽니다."), strict=True):
        node = to_node(opening, part, PARTS_OF_A_NODE)
        assert node.text == text
        assert node.embedding == [0.6, 0.8]
        assert (node.metadata["faq_id"], node.metadata["part"]) == (opening.id, part)
        assert node.metadata["morphs"] == "언제 열다"
        assert node.ref_doc_id == opening.id


def test_no_metadata_is_embedded_or_shown_to_a_model() -> None:
    node = to_node(faq("언제 여나요?", "봄에 엽니다."), "answer", PARTS_OF_A_NODE)
    assert set(node.metadata) == set(node.excluded_embed_metadata_keys) == set(node.excluded_llm_metadata_keys)


def test_embedded_texts_are_the_title_and_the_question_with_the_beginning_of_its_answer() -> None:
    long = faq("[단체] 언제 여나요?", "봄" * 500)
    assert embedded_text(long, "question") == "[단체] 언제 여나요?"
    assert embedded_text(long, "answer") == "언제 여나요? " + "봄" * EMBEDDED_CHARACTERS
    assert "\n" not in embedded_text(faq("언제?", "봄에.\n\n- 하나\n- 둘"), "answer")


def test_searched_texts_are_the_title_without_and_with_the_answer() -> None:
    long = faq("[단체] 언제 여나요?", "봄" * 5_000)
    assert searched_text(long, "question") == "[단체] 언제 여나요?"
    assert searched_text(long, "answer") == "[단체] 언제 여나요? " + "봄" * SEARCHED_CHARACTERS


def test_catalog_finds_by_id_and_follows_titles_but_not_to_itself() -> None:
    first = clean(RawFAQ(0, "", "[단체] 언제 여나요?", "봄", ("어디서 여나요?", "없는 제목", "[단체] 언제 여나요?")))
    second = clean(RawFAQ(1, "", "어디서 여나요?", "강가", ("[단체] 언제 여나요?", "[단체] 언제 여나요?")))
    catalog = Catalog([first, second])
    assert (list(catalog), len(catalog), catalog.ids) == ([first, second], 2, [first.id, second.id])
    assert (catalog.get(first.id), catalog.get("없음"), catalog[second.id]) == (first, None, second)
    assert list(catalog.related(first)) == [second]
    assert list(catalog.related(second)) == [first]
