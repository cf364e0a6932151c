"""`smartstore index`, `ask` and `doctor` with an embedding model of a server: its price and its faults are told."""

from collections.abc import Callable
from functools import partial

import pytest
from conftest import ModelServer, free_port
from program import Result, World, together
from served import Served

from smartstore_indexing.embedding_settings import EmbeddingSettings
from smartstore_ui.indexing import plan

CSV = """category,question,answer,keyword
정산,정산은 언제 되나요?,구매확정 다음 영업일에 정산됩니다.,
배송,오늘출발은 어떻게 설정하나요?,상품 등록 화면에서 설정합니다.,
"""
MORE = CSV + "배송,반품 택배비는 누가 내나요?,구매자가 마음을 바꾼 반품은 구매자가 냅니다.,\n"


def settings_of(**settings: object) -> EmbeddingSettings:
    return EmbeddingSettings.model_validate({"kind": "openai", **settings})


@pytest.mark.parametrize(
    ("settings", "texts", "tokens", "said"),
    [
        ({}, 120, 14_321, "임베딩할 글 120개, 호출 2번, 약 14,000토큰 (예상 비용 $0.0003)"),
        ({"model": "text-embedding-3-large"}, 5_434, 1_030_000, "호출 55번, 약 1,000,000토큰 (예상 비용 $0.1339)"),
        ({"batch": 32}, 64, 987, "임베딩할 글 64개, 호출 2번, 약 990토큰 (예상 비용 $0.0001 미만)"),
        ({"model": "BAAI/bge-m3"}, 2, 9, "임베딩할 글 2개, 호출 1번, 약 9토큰"),
        ({"model": "BAAI/bge-m3", "price_per_million_tokens": 5}, 2, 1_000_000, "약 1,000,000토큰 (예상 비용 $5.0000)"),
    ],
)
def test_plan_tells_calls_tokens_and_the_price_where_it_is_known(
    settings: dict[str, object], texts: int, tokens: int, said: str
) -> None:
    assert plan(settings_of(**settings), texts, tokens).endswith(said)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> dict[str, Result]:
    def world(name: str) -> World:
        made = World.make(tmp_path_factory.mktemp(name) / "world")
        (made.folder / "faq.csv").write_text(CSV, encoding="utf-8")
        (made.folder / "more.csv").write_text(MORE, encoding="utf-8")
        return made

    served = {
        "SMARTSTORE_EMBEDDING__KIND": "openai",
        "SMARTSTORE_EMBEDDING__MODEL": "stub",
        "SMARTSTORE_EMBEDDING__URL": model_server.url,
        "SMARTSTORE_EMBEDDING__PRICE_PER_MILLION_TOKENS": "100",
        "SMARTSTORE_EMBEDDING__MAX_RETRIES": "1",
    }

    def a_life() -> dict[str, Result]:
        one = world("life")
        found = {
            "first": one.run("index", "faq.csv", **served),
            "again": one.run("index", "faq.csv", **served),
            "more": one.run("index", "more.csv", **served),
            "asked": one.run("ask", "--json", "반품 택배비는 누가 내나요?", **served),
            "doctor": one.run("doctor", **served),
            "away": one.run("doctor", **served | {"SMARTSTORE_EMBEDDING__URL": f"http://127.0.0.1:{free_port()}/v1"}),
            "without it": one.run("ask", "정산은 언제 되나요?"),
        }
        with one.terminal("index", "--full", "more.csv", **served) as terminal:
            found["terminal"] = Result(0, terminal.rest(), "")
        server = Served(one.data.parent, served, ("--only", "api"))
        try:
            server.start()
            found["by the server"] = one.run("index", "--full", "more.csv", **served)
        finally:
            server.end()
        return found

    def faults() -> dict[str, Result]:
        one = world("faults")
        hanging = served | {"SMARTSTORE_EMBEDDING__MODEL": "stub-hang"}
        with one.terminal("index", "faq.csv", **hanging) as terminal:
            terminal.until("임베딩할 글")
            terminal.interrupt()
            interrupted = Result(-1, terminal.rest(), "")
        run = partial(one.run, "index", "faq.csv")
        return {
            "interrupted": interrupted,
            "refused": run(**served | {"SMARTSTORE_EMBEDDING__MODEL": "stub-401"}),
            "no packages": run(SMARTSTORE_EMBEDDING__KIND="huggingface", SMARTSTORE_EMBEDDING__MODEL="any/model"),
            "none": one.run("doctor"),
        }

    first, second = together([a_life, faults])
    return first | second


pytestmark = pytest.mark.timeout(300)


def needs_results(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test of the fixture's fifteen processes; what they do is tested without them in test_embedders.py."""
    marked: Callable[..., None] = pytest.mark.slow(pytest.mark.long(test))
    return marked


@needs_results
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("first", "임베딩할 글 4개, 호출 1번, 약 92토큰 (예상 비용 $0.0092)"),
        ("more", "임베딩할 글 2개, 호출 1번, 약 56토큰 (예상 비용 $0.0056)"),
        ("by the server", "임베딩할 글 6개, 호출 1번, 약 150토큰 (예상 비용 $0.0148)"),
    ],
)
def test_what_will_be_embedded_is_said_on_stderr(results: dict[str, Result], name: str, said: str) -> None:
    assert results[name].code == 0
    assert results[name].err == f"{said}\n"
    assert results[name].out.startswith("FAQ ")


@needs_results
def test_nothing_is_said_where_nothing_is_embedded(results: dict[str, Result]) -> None:
    assert results["again"].code == 0
    assert results["again"].err == ""
    assert "바뀐 내용이 없어" in results["again"].out


@needs_results
def test_plan_stands_above_the_progress_in_a_terminal(results: dict[str, Result]) -> None:
    screen = results["terminal"].out
    assert screen.count("임베딩할 글 6개, 호출 1번") == 1
    assert screen.index("임베딩할 글") < screen.index("6/6")


@needs_results
def test_faq_is_found(results: dict[str, Result]) -> None:
    assert results["asked"].code == 0
    assert results["asked"].only("answer")["text"].startswith("구매자가 마음을 바꾼 반품은")


@needs_results
def test_change_of_the_model_is_said_when_a_question_is_asked(results: dict[str, Result]) -> None:
    assert results["without it"].complains_in_korean
    assert "stub+" in results["without it"].err
    assert "smartstore index" in results["without it"].err


@needs_results
def test_doctor_names_the_model_and_its_dimensions(results: dict[str, Result]) -> None:
    assert results["doctor"].code == 0
    assert "✓ 임베딩: stub: 질문 하나에 " in results["doctor"].out
    assert "1,536차원" in results["doctor"].out


@needs_results
def test_doctor_says_that_the_server_is_away(results: dict[str, Result]) -> None:
    assert results["away"].code == 1
    assert "✗ 임베딩: 임베딩 모델 stub의 서버에 연결할 수 없습니다." in results["away"].out


@needs_results
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refused", "키를 거절했습니다"),
        ("no packages", "uv pip install"),
    ],
)
def test_what_stands_in_the_way_is_told_in_korean(results: dict[str, Result], name: str, said: str) -> None:
    assert results[name].complains_in_korean
    assert said in results[name].err
    assert results[name].out == ""


@needs_results
def test_interrupted_call_ends_the_command_and_leaves_nothing(results: dict[str, Result]) -> None:
    assert "Traceback" not in results["interrupted"].out
    assert "✗ 색인: 아직 색인된 FAQ가 없습니다" in results["none"].out
