"""`smartstore doctor`: what it finds, and what it says to do."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import ModelServer
from program import Result, World, together

from smartstore_indexing.holding import held

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def results(
    indexed_dir: Path, tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer
) -> dict[str, Result]:
    def world(name: str, indexed: Path | None = indexed_dir) -> World:
        return World.make(tmp_path_factory.mktemp(name) / "world", indexed)

    def with_model(name: str) -> Callable[[], Result]:
        return partial(
            world(name).run,
            "doctor",
            OPENAI_API_KEY="sk-test",
            OPENAI_BASE_URL=model_server.url,
            SMARTSTORE_OPENAI__MODEL=name,
        )

    unwritable = world("unwritable", None)
    (unwritable.folder / "file").write_text("", encoding="utf-8")  # no folder can be made below it, by root either
    calls: dict[str, Callable[[], Result]] = {
        "healthy": with_model("stub"),
        "no index": partial(world("none", None).run, "doctor"),
        "key refused": with_model("stub-401"),
        "unwritable": partial(unwritable.run, "doctor", SMARTSTORE_DATA_DIR=str(unwritable.folder / "file" / "data")),
        "wrong value": partial(world("value", None).run, "doctor", SMARTSTORE_OPENAI__TEMPERATURE="9"),
    }
    busy = world("busy")
    with held(busy.data):
        calls["held"] = partial(busy.run, "doctor")
        return dict(zip(calls, together(list(calls.values())), strict=True))


def test_healthy_installation_ends_with_0(results: dict[str, Result]) -> None:
    healthy = results["healthy"]

    assert healthy.code == 0
    assert healthy.err == ""
    assert healthy.out.splitlines()[-1] == "모두 정상입니다."
    for found in ("✓ 벡터 저장소: Milvus Lite", "✓ 색인: FAQ 180건", "✓ 임베딩: ", "✓ 모델 openai: stub: 첫 토큰까지"):
        assert found in healthy.out
    assert "✗" not in healthy.out


def test_missing_index_ends_with_1_and_says_how_to_index(results: dict[str, Result]) -> None:
    missing = results["no index"]

    assert missing.code == 1
    assert "✗ 색인: " in missing.out
    assert "smartstore index" in missing.out
    assert "✓ 모델: extractive" in missing.out


def test_held_data_folder_ends_with_3_and_names_the_process(results: dict[str, Result]) -> None:
    busy = results["held"]

    assert busy.code == 3
    assert f"PID {os.getpid()}" in busy.out


def test_refused_key_is_found_and_not_shown(results: dict[str, Result]) -> None:
    refused = results["key refused"]

    assert refused.code == 1
    assert "✗ 모델 openai: " in refused.out
    assert "OPENAI_API_KEY" in refused.out
    assert "sk-test" not in refused.out + refused.err


def test_folder_that_cannot_be_written_is_named(results: dict[str, Result]) -> None:
    unwritable = results["unwritable"]

    assert unwritable.code == 1
    assert "쓸 수 없습니다" in unwritable.out
    assert "SMARTSTORE_DATA_DIR" in unwritable.out


def test_wrong_setting_is_named(results: dict[str, Result]) -> None:
    assert results["wrong value"].code == 1
    assert results["wrong value"].complains_in_korean
    assert "OPENAI__TEMPERATURE" in results["wrong value"].err


@pytest.mark.parametrize("name", ["healthy", "no index", "key refused", "held", "unwritable", "wrong value"])
def test_no_finding_is_a_traceback(results: dict[str, Result], name: str) -> None:
    assert "Traceback" not in results[name].out + results[name].err


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> dict[str, Result]:
    def check(kind: str, name: str) -> Callable[[], Result]:
        world = World.make(tmp_path_factory.mktemp(name) / "world", None)
        openai = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": model_server.url, "SMARTSTORE_OPENAI__MODEL": name}
        vllm = {"SMARTSTORE_VLLM__URL": model_server.url, "SMARTSTORE_VLLM__MODEL": name}
        return partial(world.run, "doctor", "--model", kind, **(openai if kind == "openai" else vllm))

    calls = {
        "stub": check("openai", "stub"),
        "stub-think": check("vllm", "stub-think"),
        "stub-think-always": check("vllm", "stub-think-always"),
        "stub-401": check("vllm", "stub-401"),
        "stub-hang": check("openai", "stub-hang"),
        "none": check("gpt-99", "none"),
    }
    return dict(zip(calls, together(list(calls.values())), strict=True))


def test_model_check_says_what_is_right_and_what_is_wrong(checks: dict[str, Result]) -> None:
    found = checks["stub"]

    assert found.code == 1
    assert "✓ 연결: 첫 토큰까지" in found.out
    assert "✓ 스트리밍" in found.out
    assert "✓ 생각" in found.out
    assert "✗ 역할: 시스템 지시를 따르지 않습니다" in found.out  # the scripted model reads nothing
    assert "✗ 근거 있는 답: 출처 [1]을 달지 않았습니다" in found.out
    assert "✗ 없는 내용" in found.out


def test_model_check_tells_whether_thinking_is_off(checks: dict[str, Result]) -> None:
    assert "✓ 생각" in checks["stub-think"].out
    assert "✗ 생각" in checks["stub-think-always"].out


def test_model_check_says_why_a_model_does_not_answer(checks: dict[str, Result]) -> None:
    assert "✗ 호출: 모델 stub-401이(가) 키를 거절했습니다. SMARTSTORE_VLLM__API_KEY" in checks["stub-401"].out
    assert "✗ 호출: 모델 stub-hang이(가) 제한 시간 안에 답하지 않았습니다" in checks["stub-hang"].out
    assert checks["none"].code == 1
    assert checks["none"].err.startswith("오류: 모델 gpt-99")
