import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from workflows.context import JsonSerializer

from smartstore_workflows import events
from smartstore_workflows.events import (
    Answered,
    AnswerRecalled,
    AnswerWritten,
    Asked,
    Evidence,
    Fact,
    FollowUpChosen,
    NotFound,
    Outcome,
    Passage,
    PassagesRetrieved,
    QuestionAsked,
    QuestionUnderstood,
    Refused,
    RememberedAnswer,
    Restarted,
    ScopeJudged,
    Source,
    SourcesFound,
    StageEnded,
    StageStarted,
    Start,
    Stop,
    Suggestion,
    TokenStreamed,
    Turn,
    Usage,
    Value,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "events.json"

TURN = Turn(
    question="가입은요?",
    standalone="가입은요?",
    answer="됩니다. [1]",
    kind="answered",
    faq_ids=("a1",),
    offered=("b2",),
)
ASKED = Asked(question="그럼 서류는요?", standalone="가입은요? 그럼 서류는요?", history=(TURN,), model="extractive")
PASSAGE = Passage(faq_id="a1", score=0.75)
SOURCE = Source(n=1, id="a1", category="가입 · 심사", question="서류가 필요한가요?", score=0.75, snippet="서류는…")
EVIDENCE = Evidence(**{name: place / 8 for place, name in enumerate(Evidence.model_fields)})
WRITTEN = AnswerWritten(
    asked=ASKED,
    kind="answered",
    text="서류는 없습니다. [1]",
    citations=("a1",),
    sources=(SOURCE,),
    passages=(PASSAGE,),
    usage=Usage(prompt_tokens=100, completion_tokens=20),
    in_scope=0.75,
    found=0.5,
)
REMEMBERED = RememberedAnswer(
    question="서류가 필요해요?", text="서류는 없습니다. [1]", citations=("a1",), sources=(SOURCE,), passages=(PASSAGE,)
)
REFUSAL = AnswerWritten(asked=ASKED, kind="refused", text="거절", passages=(PASSAGE,))
SUGGESTION = Suggestion(text="서류가 필요한지 안내해 드릴까요?", faq_id="b2")
EXAMPLES: list[Start | Fact | Stop] = [
    QuestionAsked(question="그럼 서류는요?", history=(TURN,), faq_id="b2", model="openai"),
    QuestionUnderstood(asked=ASKED),
    FollowUpChosen(asked=ASKED, faq_id="b2"),
    AnswerRecalled(asked=ASKED, answer=REMEMBERED),
    ScopeJudged(in_scope=1.5, answerable=0.5),
    PassagesRetrieved(asked=ASKED, passages=(PASSAGE,), evidence=EVIDENCE),
    WRITTEN,
    Answered(written=WRITTEN, suggestions=(SUGGESTION,)),
    Refused(written=REFUSAL, suggestions=(SUGGESTION,)),
    NotFound(written=REFUSAL, suggestions=()),
    StageStarted(stage="understand"),
    StageEnded(stage="suggest", milliseconds=1.25),
    SourcesFound(sources=(SOURCE,)),
    TokenStreamed(text="서류는 "),
    Restarted(reason="모델이 답하지 않았습니다."),
]
VALUES: list[Value] = [TURN, ASKED, PASSAGE, SOURCE, EVIDENCE, SUGGESTION, REMEMBERED, Usage()]


def name(example: object) -> str:
    return type(example).__name__


def golden_events() -> list[Any]:
    """Return one of each event as it is stored; tests/golden/README.md says how the file is made from it."""
    return [json.loads(JsonSerializer().serialize(example)) for example in EXAMPLES]


def test_every_event_has_an_example() -> None:
    bases = {Start, Fact, Stop, Outcome}
    declared = {
        found
        for found in vars(events).values()
        if isinstance(found, type) and issubclass(found, Start | Fact | Stop) and found not in bases
    }
    assert {type(example) for example in EXAMPLES} == declared


def test_stored_events_are_those_of_the_golden_file() -> None:
    assert golden_events() == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_stored_event_comes_back_as_it_was(example: Start | Fact | Stop) -> None:
    found = JsonSerializer().deserialize(JsonSerializer().serialize(example))
    assert type(found) is type(example)
    assert found.model_dump() == example.model_dump()


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_event_refuses_a_field_that_it_does_not_declare(example: Start | Fact | Stop) -> None:
    with pytest.raises(TypeError, match="qestion"):
        type(example)(**dict(example), qestion="오타")


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_event_refuses_a_field_of_the_wrong_type(example: Start | Fact | Stop) -> None:
    first = next(iter(type(example).model_fields))
    with pytest.raises(ValidationError):
        type(example)(**{**dict(example), first: object()})


@pytest.mark.parametrize("example", VALUES, ids=name)
def test_value_refuses_unknown_fields_and_changes(example: Value) -> None:
    with pytest.raises(ValidationError):
        type(example)(**{**dict(example), "qestion": "오타"})
    field = next(iter(type(example).model_fields))
    with pytest.raises(ValidationError):
        setattr(example, field, getattr(example, field))


@pytest.mark.parametrize("example", [found for found in EXAMPLES if isinstance(found, Stop)], ids=name)
def test_outcome_in_a_log_says_what_it_is(example: Stop) -> None:
    text = str(example)
    assert text == repr(example)
    assert text.startswith(name(example))
    assert "서류" in text
