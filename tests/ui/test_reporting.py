"""The report as a page: what it shows, and that it asks nobody for anything."""

import re
from html.parser import HTMLParser

import pytest

from smartstore_ui.reporting import MOST_MISSES, page
from smartstore_workflows.comparing import Baseline, compare
from smartstore_workflows.evaluation import Judged, LabelledSet, Line, SetKind
from smartstore_workflows.events import Kind
from smartstore_workflows.results import Evaluation, Measured, as_json, measure

EVIL = "</script><script>alert(1)</script><img src=//evil.example/x onerror=alert(1)>&amp;"


class Elements(HTMLParser):
    """Collects the elements of a page and the text outside its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] not in ("script", "style"):
            self.text += data


def judged(outcome: Kind, rank: int = 0, **keys: object) -> Judged:
    line = Line.model_validate({"id": "x", "query": EVIL, "gold": [0], **keys})
    return Judged(line, outcome, rank, gold=("정답 제목",), top=(EVIL, "둘째 제목"), in_scope=0.4, found=0.6)


def measured(kind: SetKind, *lines: Judged, file: str = EVIL) -> Measured:
    return measure(LabelledSet(file, kind, [item.line for item in lines]), lines)


@pytest.fixture(scope="module")
def whole() -> Elements:
    sets = [
        measured("queries", judged("answered", 1, style=EVIL), judged("refused", 1, style="typo")),
        measured("multiturn", judged("answered", 0, standalone="다른 질문")),
        measured("scope", judged("refused", label="out", kind=EVIL), judged("answered", label="in")),
        measured("unanswerable", judged("answered"), judged("not_found")),
    ]
    evaluation = Evaluation(1_234, "v1", sets)
    baseline = Baseline.model_validate(as_json(evaluation))
    return Elements(page(evaluation, compare(baseline, sets)))


def test_page_is_korean_and_fits_a_phone(whole: Elements) -> None:
    assert ("html", {"lang": "ko"}) in whole.found
    assert any(attributes.get("name") == "viewport" for _, attributes in whole.found)
    assert "FAQ 1,234건" in whole.text


def test_page_refers_to_nothing_outside_and_forbids_it(whole: Elements) -> None:
    assert {"link", "img", "iframe", "base", "object"} & {tag for tag, _ in whole.found} == set()
    assert [found for found in whole.found if {"src", "href", "onerror"} & found[1].keys()] == []
    (policy,) = [found["content"] for _, found in whole.found if "http-equiv" in found]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_text_of_the_operator_is_shown_and_never_read_as_html(whole: Elements) -> None:
    assert whole.text.count(EVIL) >= 8
    scripts = [attributes for tag, attributes in whole.found if tag == "script"]
    assert len(scripts) == 1 + len([1 for _, found in whole.found if found.get("class") == "plot"])


def test_each_plot_has_an_id_and_a_description_of_its_own(whole: Elements) -> None:
    plots = [found["aria-label"] for _, found in whole.found if found.get("class") == "plot"]
    assert plots == [
        *("구분별 hit@1, hit@3, hit@10 막대그래프", "정답 순위의 분포") * 2,
        "거절의 정밀도-재현율 곡선",
        "찾지 못함의 정밀도-재현율 곡선",
    ]
    ids = [found["id"] for _, found in whole.found if "id" in found]
    assert len(set(ids)) == len(ids) == len(plots)


def test_misses_say_what_was_asked_and_found(whole: Elements) -> None:
    assert "정답 제목" in whole.text
    assert "둘째 제목" in whole.text
    assert "거절 · 정답은 목록의 1위" in whole.text
    assert "답변 · 정답이 목록에 없음" in whole.text


def test_without_groups_or_a_second_set_there_are_fewer_plots() -> None:
    found = Elements(page(Evaluation(1, "v", [measured("queries", judged("answered", 1))]), []))
    assert [attributes["aria-label"] for _, attributes in found.found if "aria-label" in attributes] == [
        "정답 순위의 분포"
    ]
    assert "이전 결과" not in found.text
    assert "없습니다." in found.text


def test_long_lists_of_misses_are_cut() -> None:
    lines = [judged("answered") for _ in range(MOST_MISSES + 1)]
    found = Elements(page(Evaluation(1, "v", [measured("unanswerable", *lines)]), []))
    assert re.search(rf"{MOST_MISSES + 1}건, 그 가운데 {MOST_MISSES}건", found.text)
    assert len([tag for tag, _ in found.found if tag == "li"]) == MOST_MISSES
