"""What a model is fine-tuned on: chats as the bot asks them, each with the answer that it should end in. Pure.

FAQs are split so that no answer that the validation asks for stands in a chat of the training. Contexts are not
searched as the bot does it, but by letters and category: nothing needs to be indexed.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import cycle, takewhile
from typing import Literal

from llama_index.core.base.llms.types import ChatMessage

from smartstore_indexing.faq import FAQ, FaqId
from smartstore_workflows.events import Turn
from smartstore_workflows.grounding import grounded
from smartstore_workflows.likeness import Neighbours, grouped, may_answer, same_question
from smartstore_workflows.masking import mask
from smartstore_workflows.prompting import CONTEXT_FAQS, HISTORY_TURNS, answer_messages, unfenced
from smartstore_workflows.understanding import stand_alone
from smartstore_workflows.wording import NOT_FOUND, PARENTHESIS, REFUSAL, offer

ExampleKind = Literal["answered", "multi_turn", "not_found", "refused"]
KINDS: tuple[ExampleKind, ...] = ("answered", "multi_turn", "not_found", "refused")
UNCONFIRMED = "FAQ에서 확인되지 않는 내용입니다."  # as prompts/answer.txt asks for

OWN_QUESTIONS = 2  # of each FAQ: its own, and the same reworded
OFFERING = " 안내해 드릴까요?"
REQUESTS = (" 알려 주세요.", " 궁금합니다.", " 알고 싶어요.")
FOLLOWING = ("그럼 ", "그러면 ", "")
# Besides its answered example, each so many-th question has one of these kinds.
MULTI_TURN_EVERY, NOT_FOUND_EVERY, REFUSED_EVERY = 3, 4, 6
WITH_HISTORY = 0.3  # of those not found and refused
OFFER_CHOSEN, LEANING = 0.25, 0.5  # of the later turns
SPARE = 2  # near FAQs that a context may do without, so that it is not always the same
NO_QUESTIONS = frozenset({"abuse", "noise"})  # kinds of lines out of scope


@dataclass(frozen=True, slots=True)
class Example:
    """One chat that ends in the answer to learn; `faq_id` names the FAQ that is asked about, "" for a refusal."""

    kind: ExampleKind
    faq_id: str
    messages: tuple[tuple[str, str], ...]

    @property
    def line(self) -> str:
        """Return it as a line of JSON, in the form of chats that OpenAI's and TRL's training reads."""
        messages = [{"role": role, "content": content} for role, content in self.messages]
        return json.dumps({"kind": self.kind, "faq_id": self.faq_id, "messages": messages}, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Asking:
    """A question, the FAQ that answers it, and the ids of others that do too."""

    faq: FAQ
    question: str
    also: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Splits:
    """The examples of the training and of the validation.

    `left_out` counts the FAQs that none asks about: nothing of their answers can be cited, or they were held out and
    stand within an answer that the training shows.
    """

    train: list[Example]
    validation: list[Example]
    left_out: int


class Chats:
    """Makes examples whose contexts and histories are of certain FAQs."""

    def __init__(
        self,
        faqs: Sequence[FAQ],
        groups: Mapping[FaqId, FaqId],
        off_topic: Sequence[str],
        chance: random.Random,
    ) -> None:
        """Index the FAQs, of which there are some; `groups` as likeness.grouped makes them."""
        self._faqs, self._groups, self._chance = faqs, groups, chance
        self._neighbours = Neighbours(faqs)
        self._off_topic = cycle(off_topic)

    def about(self, askings: Sequence[Asking], advance: Callable[[], None]) -> Iterator[Example]:
        """Yield the examples of all kinds that some questions give, and call `advance` after each question."""
        for number, asking in enumerate(askings):
            found = [self.answered(asking)]
            if number % MULTI_TURN_EVERY == 0:
                found.append(self.multi_turn(asking))
            if number % NOT_FOUND_EVERY == 0:
                found.append(self.not_found(asking))
            if number % REFUSED_EVERY == 0:
                found.append(self.refused())
            yield from filter(None, found)
            advance()

    def answered(self, asking: Asking) -> Example | None:
        """Return an example that the FAQ answers, among others; None when nothing of it can be cited."""
        return self._grounded("answered", asking, asking.question, (), self._others(asking, same_question))

    def multi_turn(self, asking: Asking) -> Example | None:
        """Return one of a later turn: an offer that was chosen, a question that leans on the last, or a new topic."""
        others = self._others(asking, same_question)
        before = self._turn(others[0]) if others else None
        if before is None:
            return None
        history = [*self._history(HISTORY_TURNS - 1), before]
        form = self._chance.random()
        if form < OFFER_CHOSEN:
            return self._grounded("multi_turn", asking, offer(asking.faq.question, "answered"), history, ())
        question = asking.question
        if form < OFFER_CHOSEN + LEANING and (short := shortened(question, before.question)):
            question = stand_alone(self._chance.choice(FOLLOWING) + short, before)
        self._chance.shuffle(others)
        return self._grounded("multi_turn", asking, question, history, others)

    def not_found(self, asking: Asking) -> Example:
        """Return one whose FAQ, and what may answer the question too, was left out of the context."""
        context = self._others(asking, may_answer, CONTEXT_FAQS)
        return self._without("not_found", asking.faq.id, asking.question, context, UNCONFIRMED)

    def refused(self) -> Example:
        """Return one that has nothing to do with SmartStore, among the FAQs that share letters with it."""
        question = next(self._off_topic)
        context = self._neighbours.near(question, CONTEXT_FAQS)
        return self._without("refused", "", question, context, REFUSAL)

    def _grounded(
        self, kind: ExampleKind, asking: Asking, question: str, history: Sequence[Turn], others: Sequence[FAQ]
    ) -> Example | None:
        faq, place = asking.faq, self._chance.randint(0, len(others))
        for context in ([*others[:place], faq, *others[place:]], [faq]):  # alone where the others would cut it
            asked = answer_messages(mask(question), context, history)
            number = context.index(faq) + 1
            if answer := grounded(faq, asking.question, number, asked[-1].content or ""):
                return _ending(kind, faq.id, asked, answer)
        return None

    def _without(self, kind: ExampleKind, faq_id: str, question: str, context: Sequence[FAQ], answer: str) -> Example:
        """Return an example that no FAQ of its context answers; some have a history, which is to tell nothing."""
        history = self._history(HISTORY_TURNS) if self._chance.random() < WITH_HISTORY else []
        return _ending(kind, faq_id, answer_messages(mask(question), context, history), answer)

    def _history(self, most: int) -> list[Turn]:
        """Return up to so many turns about anything."""
        picked = (self._turn(self._chance.choice(self._faqs)) for _ in range(self._chance.randint(0, most)))
        return [self._astray() if self._chance.random() < 0.2 else turn for turn in picked if turn]

    def _turn(self, faq: FAQ) -> Turn | None:
        """Return a turn that an FAQ answered, from any place of its context."""
        question = mask(own_question(faq))
        answer = grounded(faq, question, self._chance.randint(1, CONTEXT_FAQS), unfenced(faq.answer))
        return Turn(question=question, standalone=question, answer=answer, kind="answered") if answer else None

    def _astray(self) -> Turn:
        """Return a turn that was refused, or that no FAQ answered."""
        if self._chance.random() < 0.5:
            line = mask(next(self._off_topic))
            return Turn(question=line, standalone=line, answer=REFUSAL, kind="refused")
        question = mask(own_question(self._chance.choice(self._faqs)))
        return Turn(question=question, standalone=question, answer=NOT_FOUND, kind="not_found")

    def _others(self, asking: Asking, answers: Callable[[FAQ, FAQ], bool], most: int = CONTEXT_FAQS - 1) -> list[FAQ]:
        """Return, in any order, FAQs near a question that do not answer it as far as one can tell."""
        faq, group = asking.faq, self._groups[asking.faq.id]
        near = [
            other
            for other in self._neighbours.near(f"{faq.category} {asking.question}")
            if self._groups[other.id] != group and other.id not in asking.also and not answers(faq, other)
        ]
        return self._chance.sample(near[: most + SPARE], min(most, len(near)))


def _ending(kind: ExampleKind, faq_id: str, asked: Sequence[ChatMessage], answer: str) -> Example:
    messages = ((message.role.value, message.content or "") for message in asked)
    return Example(kind, faq_id, (*messages, ("assistant", answer)))


def splits(
    faqs: Sequence[FAQ],
    questions: Mapping[FaqId, Sequence[Asking]],
    off_topic: Sequence[str],
    *,
    validation: float,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> Splits:
    """Return the examples of FAQs; the same seed gives the same ones.

    Args:
        faqs: of at least two groups.
        questions: further questions about them.
        off_topic: at least two questions to refuse.
        validation: the share, 0 to 1, of the FAQs and of `off_topic` that is held out: at least one of each, not all.
        seed: what the choices are drawn by.
        advance: called after each question, of which an FAQ has OWN_QUESTIONS.
    """
    chance = random.Random(seed)  # noqa: S311
    groups = grouped(faqs)
    held = held_out(groups, validation, chance)
    lines = chance.sample(off_topic, len(off_topic))
    cut = min(max(1, round(len(lines) * validation)), len(lines) - 1)

    def examples(about: Sequence[FAQ], shown: Sequence[FAQ], strangers: Sequence[str]) -> list[Example]:
        askings = [asking for faq in about for asking in (*own_askings(faq, chance), *questions.get(faq.id, ()))]
        chance.shuffle(askings)
        return list(Chats(shown, groups, strangers, chance).about(askings, advance))

    seen = [faq for faq in faqs if faq.id not in held]
    shown = "\0".join(unfenced(f"{faq.title}\0{faq.answer}") for faq in seen)
    unseen = [faq for faq in faqs if faq.id in held and unfenced(faq.answer) not in shown]
    train, tested = examples(seen, seen, lines[cut:]), examples(unseen, faqs, lines[:cut])
    about = {example.faq_id for example in (*train, *tested)}
    return Splits(train, tested, sum(faq.id not in about for faq in faqs))


def held_out(groups: Mapping[FaqId, FaqId], share: float, chance: random.Random) -> set[FaqId]:
    """Return the FAQs of whole groups that make up about a share of all: at least one group, and not all."""
    leaders = sorted(set(groups.values()))
    chance.shuffle(leaders)
    held: set[FaqId] = set()
    for leader in leaders[:-1]:
        if held and len(held) >= share * len(groups):
            break
        held |= {faq_id for faq_id, group in groups.items() if group == leader}
    return held


def own_askings(faq: FAQ, chance: random.Random) -> list[Asking]:
    """Return an FAQ's own question, and the same as a request."""
    request = offer(faq.question, "answered").removesuffix(OFFERING) + chance.choice(REQUESTS)
    return [Asking(faq, own_question(faq)), Asking(faq, request)]


def own_question(faq: FAQ) -> str:
    """Return an FAQ's question without a closing remark in parentheses."""
    return PARENTHESIS.sub("", faq.question)


def shortened(question: str, before: str) -> str:
    """Return a question without the topic that the one before it has said; "" where that leaves no follow-up.

    "정기구독 상품은 어떻게 해지하나요?" after "정기구독 상품이란 무엇인가요?" becomes "어떻게 해지하나요?".
    """
    words = question.split()
    known = list(takewhile(lambda word: word[:2] in before, words))
    left = words[len(known) :]
    # A short word leans on the one before it: "등록 시", "할 수 있나요".
    follows = known and len(left) > 1 and len(left[0]) > 1 and left[0].isalnum()
    return " ".join(left) if follows else ""


def off_topic_lines() -> list[str]:
    """Return the project's own questions that have nothing to do with selling on SmartStore."""
    text = resources.files("smartstore_workflows").joinpath("scope_lines.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["text"] for line in lines if line["label"] == "out" and line["kind"] not in NO_QUESTIONS]
