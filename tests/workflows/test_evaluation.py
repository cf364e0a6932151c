import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.faq import FAQ, Catalog, faq_id
from smartstore_workflows import Chatbot
from smartstore_workflows.evaluation import (
    Judged,
    LabelledSet,
    Line,
    Message,
    Pair,
    SetKind,
    group_of,
    judge,
    judge_pairs,
    metrics,
    read_set,
    turns_of,
)
from smartstore_workflows.events import Answered, AnswerWritten, Asked, Kind, Passage, Turn
from smartstore_workflows.misses import misses
from smartstore_workflows.reusing import asked_after
from smartstore_workflows.running import TimedOutcome

DATA = Path(__file__).parent.parent / "data"
KINDS: dict[str, SetKind] = {
    "sample_queries.jsonl": "queries",
    "sample_multiturn.jsonl": "multiturn",
    "sample_scope.jsonl": "scope",
    "sample_unanswerable.jsonl": "unanswerable",
    "cache_pairs.jsonl": "cache_pairs",
}
BAD = {
    "empty": b"",
    "blank lines": b"\n \n",
    "no JSON": b"query\n",
    "not UTF-8": b'{"id": "a", "query": "\xff"}\n',
    "an array": b'["id", "query"]\n',
    "a number": b"1\n",
    "null": b"null\n",
    "no id": b'{"query": "a"}\n',
    "no query": b'{"id": "a", "text": "x"}\n',
    "half a pair": b'{"id": "a", "a": "x", "same": true}\n',
    "pair without a label": b'{"id": "a", "a": "x", "b": "y"}\n',
    "empty query": b'{"id": "a", "query": ""}\n',
    "gold is no list": b'{"id": "a", "query": "b", "gold": 3}\n',
    "unknown label": b'{"id": "a", "query": "b", "label": "maybe"}\n',
    "unknown role": b'{"id": "a", "query": "b", "gold": [1], "history": [{"role": "system", "content": "c"}]}\n',
    "second line broken": b'{"id": "a", "query": "b"}\n{"id": "a", "que\n',
    "endlessly nested": b"[" * 200_000,
}


def judged(kind: Kind, rank: int = 0, label: str | None = None) -> Judged:
    return Judged(Line.model_validate({"id": "x", "query": "질문", "gold": [0], "label": label}), kind, rank)


@pytest.mark.parametrize(("name", "kind"), KINDS.items(), ids=KINDS)
def test_kind_is_told_from_the_keys(name: str, kind: SetKind) -> None:
    found = read_set(DATA / name)
    assert (found.file, found.kind) == (name, kind)
    assert len(found.lines) == len((DATA / name).read_text(encoding="utf-8").splitlines())
    assert sorted(KINDS.values()) == sorted(get_args(SetKind))


def test_lines_keep_their_order_and_their_figures(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(
        '{"id": "a", "query": "하나", "gold": [3, 5], "style": "typo"}\n\n{"id": "b", "query": "둘", "gold": []}',
        "utf-8",
    )
    assert [(line.id, line.query, line.gold) for line in read_set(path).lines] == [
        ("a", "하나", [3, 5]),
        ("b", "둘", []),
    ]


def test_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"id": "a", "query": "하나"}', encoding="utf-8-sig")
    assert read_set(path).lines[0].query == "하나"


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_bad_file_is_an_invalid_request_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"bad\.jsonl"):
        read_set(path)


@pytest.mark.parametrize("name", ["none.jsonl", "."], ids=["missing", "a folder"])
def test_what_is_no_file_is_an_invalid_request(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        read_set(tmp_path / name)


def test_hits_and_reciprocal_ranks_are_counted_by_hand() -> None:
    found = [judged("answered", rank) for rank in (1, 2, 4, 11, 0)]
    assert metrics("queries", found) == pytest.approx(
        {
            "hit@1": 1 / 5,
            "hit@3": 2 / 5,
            "hit@10": 3 / 5,
            "mrr": (1 + 1 / 2 + 1 / 4 + 1 / 11) / 5,
            "refused": 0,
            "not_found": 0,
        }
    )


@pytest.mark.parametrize("kind", ["queries", "multiturn"])
def test_refused_and_not_found_queries_are_misses_at_every_rank(kind: SetKind) -> None:
    found = [judged("answered", 1), judged("refused", 1), judged("not_found", 1), judged("not_found", 2)]
    assert metrics(kind, found) == pytest.approx(
        {"hit@1": 1 / 4, "hit@3": 1 / 4, "hit@10": 1 / 4, "mrr": 1 / 4, "refused": 1 / 4, "not_found": 2 / 4}
    )


def test_true_and_false_hits_of_cache_pairs_are_counted() -> None:
    reused = [(True, True), (True, True), (True, False), (False, True), (False, False)]
    found = [Judged(Pair(id="x", a="앞", b="뒤", same=same), "answered", 0, cached=cached) for same, cached in reused]
    assert metrics("cache_pairs", found) == {"true_hits": pytest.approx(2), "false_hits": 1}
    assert metrics("cache_pairs", found[:3]) == {"true_hits": pytest.approx(2)}
    assert [item.line.same for item in misses("cache_pairs", found) if isinstance(item.line, Pair)] == [False, True]


async def test_pair_is_judged_by_where_the_second_answer_came_from(bot: Chatbot) -> None:
    same, other = (
        Pair(id="x", a="판매 페널티는 어떤 경우에 받나요?", b=question, same=True, kind="typo")
        for question in ("판매 페널티는 어떤 경우에 받나여?", "판매 페널티는 어떤 경우에 없어지나요?")
    )
    unreadable = Pair(id="x", a="?", b="??", same=True)
    labelled = LabelledSet("pairs.jsonl", "cache_pairs", [same, other, unreadable])
    done: list[None] = []
    found = await judge_pairs(labelled, partial(asked_after, bot.services), lambda: done.append(None))
    assert [item.cached for item in found] == [True, False, False]
    assert len(done) == 3
    assert group_of("cache_pairs", same) == "typo"


@pytest.mark.parametrize(("rank", "hits"), [(1, "111"), (3, "011"), (4, "001"), (10, "001"), (11, "000"), (0, "000")])
def test_hit_at_k_ends_at_k(rank: int, hits: str) -> None:
    found = metrics("queries", [judged("answered", rank)])
    assert "".join(str(int(found[f"hit@{k}"])) for k in (1, 3, 10)) == hits


def test_scope_counts_each_label_by_itself() -> None:
    outside = [judged("refused", label="out")] * 3 + [judged("answered", label="out")]
    inside = [judged("answered", label="in"), judged("not_found", label="in"), judged("refused", label="in")]
    inside += [judged("answered", label="in")] * 5
    assert metrics("scope", outside + inside) == pytest.approx({"out_refused": 3 / 4, "in_kept": 7 / 8})


def test_unanswerable_counts_the_right_and_the_wrong_outcome() -> None:
    found = [judged("not_found"), judged("not_found"), judged("refused"), judged("answered")]
    assert metrics("unanswerable", found) == {"not_found": 0.5, "refused": 0.25}


def test_figure_that_no_line_counts_for_is_left_out() -> None:
    assert metrics("scope", [judged("refused", label="out")]) == {"out_refused": 1.0}
    assert metrics("scope", [judged("refused", label="in")]) == {"in_kept": 0.0}
    assert metrics("scope", [judged("refused")]) == {}


@pytest.mark.parametrize(
    ("kind", "keys", "group"),
    [
        ("queries", {"style": "typo", "kind": "x"}, "typo"),
        ("queries", {}, None),
        ("queries", {"style": ""}, None),
        ("scope", {"kind": "buyer", "style": "x"}, "buyer"),
        ("multiturn", {"standalone": "질문"}, "switch"),
        ("multiturn", {"standalone": "다른 질문"}, "follow_up"),
        ("multiturn", {}, None),
        ("unanswerable", {"style": "x", "kind": "y", "standalone": "z"}, None),
    ],
)
def test_group_is_told_from_the_key_of_the_kind(kind: SetKind, keys: dict[str, str], group: str | None) -> None:
    assert group_of(kind, Line.model_validate({"id": "x", "query": "질문", **keys})) == group


def test_conversation_becomes_turns_of_question_and_answer() -> None:
    said = [("user", "가"), ("assistant", "나"), ("user", "다"), ("user", "라"), ("assistant", "마")]
    found = turns_of(Message(role=role, content=text) for role, text in said)
    assert [(turn.question, turn.standalone, turn.answer) for turn in found] == [
        ("가", "가", "나"),
        ("다", "다", ""),
        ("라", "라", "마"),
    ]


def test_greeting_before_the_first_question_is_no_turn() -> None:
    assert turns_of([Message(role="assistant", content="안녕하세요")]) == []


async def test_rank_is_that_of_the_best_gold_row_by_its_place_in_the_file() -> None:
    rows = {7: "정산은 언제 되나요?", 3: "쿠폰은 어떻게 만드나요?", 9: "수수료는 얼마인가요?", 11: "정산일은요?"}
    answers = {7: "다음 날", 11: "다음 날"}  # equal answers are listed once: either counts
    catalog = Catalog(
        FAQ(faq_id(title), "", row, (), title, title, answers.get(row, f"답 {row}"), ()) for row, title in rows.items()
    )
    ranked = {"하나": [3, 9, 7], "둘": [9, 3], "셋": [], "넷": [3, 11]}
    asked: list[tuple[str, list[str]]] = []
    advanced: list[None] = []

    async def answer(query: str, history: Sequence[Turn]) -> TimedOutcome:
        asked.append((query, [turn.question for turn in history]))
        passages = tuple(Passage(faq_id=faq_id(rows[row]), score=0.1) for row in ranked[query])
        written = AnswerWritten(
            asked=Asked(question=query, standalone=query, model="extractive"),
            kind="answered",
            text="답",
            passages=passages,
            in_scope=0.75,
            found=0.5,
        )
        return TimedOutcome(Answered(written=written, suggestions=()), first_token=0.1, whole=0.2)

    texts = [
        {"id": "1", "query": "하나", "gold": [7, 9], "history": [{"role": "user", "content": "앞"}]},
        {"id": "2", "query": "둘", "gold": [7]},
        {"id": "3", "query": "셋", "gold": [3, 1_000_000]},
        {"id": "4", "query": "넷", "gold": [7]},
    ]
    lines = [Line.model_validate_json(json.dumps(text)) for text in texts]
    found = await judge(LabelledSet("f", "multiturn", lines), answer, catalog, lambda: advanced.append(None))
    assert [item.rank for item in found] == [2, 0, 0, 2]
    assert [item.gold for item in found] == [(rows[7], rows[9]), (rows[7],), (rows[3],), (rows[7],)]
    assert [item.top for item in found] == [(rows[3], rows[9], rows[7]), (rows[9], rows[3]), (), (rows[3], rows[11])]
    assert {(item.in_scope, item.found) for item in found} == {(0.75, 0.5)}
    assert asked == [("하나", ["앞"]), ("둘", []), ("셋", []), ("넷", [])]
    assert len(advanced) == 4


async def test_whole_workflow_is_measured_and_nothing_is_remembered(bot: Chatbot) -> None:
    labelled = read_set(DATA / "sample_multiturn.jsonl")
    few = LabelledSet(labelled.file, labelled.kind, labelled.lines[:6])
    found = await judge(few, bot.timed_outcome, await bot.services.retriever.catalog(), lambda: None)
    assert metrics("multiturn", found)["hit@10"] >= 0.5
    again = await judge(few, bot.timed_outcome, await bot.services.retriever.catalog(), lambda: None)
    assert again == found
