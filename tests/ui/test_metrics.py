"""What Prometheus reads: the figures of real runs, and labels of few values."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from smartstore_indexing.errors import InvalidRequest, StoreUnavailable
from smartstore_ui.metrics import METHODS, Metrics
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.cache_stores import SqliteAnswers
from smartstore_workflows.caching import AnswerCache
from smartstore_workflows.events import STAGES, Usage
from smartstore_workflows.sqlite import SqliteFile

QUESTION = "미성년자도 판매 회원 등록이 가능한가요?"
OUTSIDE = "오늘 저녁에 여의도 가려는데 맛집 추천해 줄래?"  # refused, and so never answered from the cache
Labels = frozenset[tuple[str, str]]


def figures(metrics: Metrics) -> dict[tuple[str, Labels], float]:
    """Return every sample, read as Prometheus does."""
    body, _ = metrics.exposition()
    families = text_string_to_metric_families(body.decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def figure(metrics: Metrics, name: str, **labels: str) -> float | None:
    return figures(metrics).get((f"smartstore_{name}", frozenset(labels.items())))


def event(number: int, name: wire.EventName, data: wire.Data) -> wire.StreamEvent:
    return wire.StreamEvent(id=number, event=name, data=data)


def begun(model: str = "extractive") -> wire.StreamEvent:
    return event(1, "started", wire.Started(run_id="r", session_id="s", model=model))


def answered(model: str = "extractive", *, cached: bool = False, degraded: bool = False) -> wire.StreamEvent:
    answer = wire.Answer(kind="answered", text="", citations=(), cached=cached, model=model, degraded=degraded)
    return event(2, "answer", answer)


def failed(code: str) -> wire.StreamEvent:
    return event(3, "error", wire.Failure(code=code, message="", retryable=True, request_id="r"))


def done(usage: Usage | None = None, **timings: float) -> wire.StreamEvent:
    return event(4, "done", wire.Done(run_id="r", timings_ms=timings, usage=usage or Usage()))


def count(metrics: Metrics, *events: wire.StreamEvent) -> None:
    with metrics.run() as run:
        for each in events:
            run.observe(each)


async def ask(bot: Chatbot, metrics: Metrics, question: str) -> list[wire.StreamEvent]:
    with metrics.run() as run:
        seen = []
        async for each in bot.stream(question):
            run.observe(each)
            seen.append(each)
        return seen


async def test_a_real_run_is_counted_with_its_times(bot: Chatbot) -> None:
    metrics = Metrics()
    events = await ask(bot, metrics, OUTSIDE)

    timings = events[-1].data
    assert isinstance(timings, wire.Done)
    assert figure(metrics, "answers_total", kind="refused", model="extractive") == 1
    assert figure(metrics, "first_token_seconds_count", model="extractive") == 1
    assert figure(metrics, "run_seconds_count", model="extractive") == 1
    first, whole = (figure(metrics, f"{name}_seconds_sum", model="extractive") for name in ("first_token", "run"))
    assert first is not None
    assert whole is not None
    assert 0 < first <= whole
    for stage in STAGES:
        assert figure(metrics, "stage_seconds_count", stage=stage) == 1
        assert figure(metrics, "stage_seconds_sum", stage=stage) == pytest.approx(timings.timings_ms[stage] / 1000)


async def test_a_question_that_is_asked_again_is_a_cache_hit(bot: Chatbot, tmp_path: Path) -> None:
    metrics = Metrics()
    file = await SqliteFile.open(tmp_path / "answers.sqlite3")
    cache = AnswerCache(await SqliteAnswers.open(file, most=10, days=1.0), read=bot.services.morphemes.read)
    remembering = Chatbot(bot.services.settings)
    remembering._services = replace(bot.services, workflow=bot.services.workflow_with(cache))
    for _ in range(2):
        await ask(remembering, metrics, QUESTION)
    await file.close()

    assert figure(metrics, "cache_hits_total") == 1
    assert figure(metrics, "answers_total", kind="answered", model="extractive") == 2
    assert figure(metrics, "answers_total", kind="refused", model="extractive") == 0


def test_claims_that_no_cited_faq_supports_are_counted() -> None:
    metrics = Metrics()
    assert figure(metrics, "unsupported_claims_total") == 0
    answer = answered("stub").data
    assert isinstance(answer, wire.Answer)
    claims = event(2, "answer", answer.model_copy(update={"unsupported": ("3일", "5%")}))
    count(metrics, begun("stub"), claims, done())
    count(metrics, begun("stub"), answered("stub"), done())
    assert figure(metrics, "unsupported_claims_total") == 2


async def test_runs_are_live_until_they_end_or_are_left(bot: Chatbot) -> None:
    metrics = Metrics()
    with metrics.run() as run:
        async with aclosing(bot.stream(QUESTION)) as events:
            async for each in events:
                run.observe(each)
                break
        assert figure(metrics, "live_runs") == 1

    assert figure(metrics, "live_runs") == 0
    assert figure(metrics, "stopped_runs_total") == 1
    assert figure(metrics, "run_seconds_count", model="extractive") is None


async def test_a_run_whose_task_is_cancelled_is_stopped() -> None:
    metrics = Metrics()
    entered = asyncio.Event()

    async def hang() -> None:
        with metrics.run():
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])

    assert figure(metrics, "live_runs") == 0
    assert figure(metrics, "stopped_runs_total") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidRequest(""), "invalid_request"), (StoreUnavailable(""), "store_unavailable"), (ValueError(), "internal")],
    ids=["asked badly", "no store", "unforeseen"],
)
def test_an_error_that_leaves_a_run_is_counted_by_its_code(error: Exception, code: str) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)), metrics.run():
        raise error

    assert figure(metrics, "run_errors_total", code=code) == 1
    assert figure(metrics, "stopped_runs_total") == 0
    assert figure(metrics, "live_runs") == 0


def test_an_error_event_is_counted_once_by_its_code() -> None:
    metrics = Metrics()
    count(metrics, begun(), failed("unavailable"), done())

    assert figure(metrics, "run_errors_total", code="unavailable") == 1
    assert figure(metrics, "stopped_runs_total") == 0


def test_a_cached_answer_is_a_cache_hit() -> None:
    metrics = Metrics()
    count(metrics, begun(), answered(), done())
    count(metrics, begun(), answered(cached=True), done())

    assert figure(metrics, "cache_hits_total") == 1
    assert figure(metrics, "answers_total", kind="answered", model="extractive") == 2


def test_a_model_that_failed_is_counted_by_its_name() -> None:
    metrics = Metrics()
    count(metrics, begun("gpt"), answered("extractive", degraded=True), done())  # answered without it
    count(metrics, begun("gpt"), failed("model_unavailable"), done())
    count(metrics, begun("gpt"), answered("gpt", degraded=True), done())  # only the conversation was missing

    assert figure(metrics, "model_errors_total", model="gpt") == 2
    assert figure(metrics, "degraded_answers_total") == 2


def test_the_tokens_that_a_model_counted_are_added_up() -> None:
    metrics = Metrics()
    for _ in range(2):
        count(metrics, begun("gpt"), answered("gpt"), done(Usage(prompt_tokens=100, completion_tokens=7)))

    assert figure(metrics, "model_tokens_total", model="gpt", direction="prompt") == 200
    assert figure(metrics, "model_tokens_total", model="gpt", direction="completion") == 14


def test_the_first_token_counts_once_and_not_the_later_ones() -> None:
    metrics = Metrics()
    tokens = [event(2, "token", wire.Token(text="가")) for _ in range(3)]
    count(metrics, begun(), *tokens, event(3, "restart", wire.Restart(reason="")), *tokens, answered(), done())

    assert figure(metrics, "first_token_seconds_count", model="extractive") == 1


def test_requests_are_counted_by_route_method_and_status() -> None:
    metrics = Metrics()
    metrics.request(route="/api/runs/{run_id}", method="GET", status=200, seconds=0.02)
    metrics.request(route="/api/runs/{run_id}", method="GET", status=404, seconds=0.01)

    route = {"route": "/api/runs/{run_id}", "method": "GET"}
    assert figure(metrics, "http_requests_total", **route, status="404") == 1
    assert figure(metrics, "http_request_seconds_count", **route) == 2
    assert figure(metrics, "http_request_seconds_sum", **route) == pytest.approx(0.03)
    assert figure(metrics, "http_request_seconds_bucket", **route, le="0.01") == 1


def test_what_a_client_makes_up_adds_no_figures() -> None:
    metrics = Metrics()
    metrics.request(route=None, method="GET", status=404, seconds=0.01)
    metrics.request(route=None, method="X0", status=405, seconds=0.01)
    before = len(figures(metrics))
    for number in range(50):
        metrics.request(route=None, method=f"X{number}", status=405, seconds=0.01)

    assert len(figures(metrics)) == before
    assert "X0" not in METHODS


def test_what_is_known_beforehand_begins_at_zero() -> None:
    metrics = Metrics()

    assert figure(metrics, "answers_total", kind="refused", model="extractive") == 0
    assert figure(metrics, "cache_hits_total") == 0
    assert figure(metrics, "live_runs") == 0
    assert figure(metrics, "stage_seconds_count", stage="retrieve") == 0


def test_two_servers_of_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    count(first, begun(), answered(), done())

    assert figure(second, "answers_total", kind="answered", model="extractive") == 0


def test_the_exposition_names_its_format_and_the_process() -> None:
    body, content_type = Metrics().exposition()

    assert content_type.startswith("text/plain; version=")
    assert b"process_resident_memory_bytes" in body
    assert b"# TYPE smartstore_answers_total counter" in body


async def test_no_text_of_a_run_is_in_the_figures(bot: Chatbot) -> None:
    metrics = Metrics()
    await ask(bot, metrics, f"{QUESTION} 010-1234-5678")

    assert not any(character >= "가" for character in metrics.exposition()[0].decode())
