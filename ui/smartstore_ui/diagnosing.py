"""`smartstore doctor`: what is configured, what answers, and what to do about what does not."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.metadata import version

from llama_index.core.base.llms.types import ChatMessage

from smartstore_indexing.errors import FaqError
from smartstore_indexing.settings import EXTRACTIVE, Settings, load_settings
from smartstore_ui.findings import MARKS, Finding, shown
from smartstore_workflows.app import Services, build
from smartstore_workflows.model_calls import Writes


def run_doctor() -> int:
    """Print every finding as it is made; return 0 when all are fine, else the exit code of the first that is not."""
    return asyncio.run(_report(load_settings()))


async def _report(settings: Settings) -> int:
    try:
        return await shown(_findings(settings))
    except FaqError as error:
        sys.stdout.write(f"{MARKS[False]} 시작: {error.message}\n")
        return error.exit_code


async def _findings(settings: Settings) -> AsyncGenerator[Finding, None]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("프로그램", True, f"smartstore-chatbot {version('smartstore-chatbot')}, Python {python}")
    yield Finding("데이터 폴더", True, str(settings.data_dir))
    async with build(settings) as services:
        where = "Milvus Lite (내장)" if settings.milvus_is_embedded else settings.milvus_uri
        yield Finding("벡터 저장소", True, f"{where}에 연결했습니다")
        yield await _index(services)
        yield await _embedding(services)
        async for finding in _models(services):
            yield finding


async def _index(services: Services) -> Finding:
    try:
        manifest = (await services.reader.snapshot()).manifest
    except FaqError as error:
        return Finding("색인", False, error.message)
    return Finding(
        "색인", True, f"FAQ {manifest.faqs:,}건, {manifest.source}, {manifest.built_at}, 버전 {manifest.version}"
    )


async def _embedding(services: Services) -> Finding:
    name = services.settings.embedding.name or services.embedding.model_name
    try:
        await services.embedding.aget_query_embeddings(["준비"])
        started = time.perf_counter()
        (vector,) = await services.embedding.aget_query_embeddings(["상품은 어떻게 등록하나요?"])
    except FaqError as error:
        return Finding("임베딩", False, error.message)
    milliseconds = (time.perf_counter() - started) * 1000
    return Finding("임베딩", True, f"{name}: 질문 하나에 {milliseconds:.0f}ms, {len(vector):,}차원")


async def _models(services: Services) -> AsyncGenerator[Finding, None]:
    if services.models.names == [EXTRACTIVE]:
        way = "OPENAI_API_KEY나 SMARTSTORE_VLLM__URL을 설정하면 모델이 답합니다"
        yield Finding("모델", True, f"{EXTRACTIVE}: FAQ에서 그대로 답합니다 ({way})")
    for name in services.models.names:
        if model := services.models.get(name):
            yield await _first_token(name, model)


async def _first_token(name: str, model: Writes) -> Finding:
    started = time.perf_counter()
    try:
        async with aclosing(model.stream([ChatMessage("'네'라고만 답해 주세요.")])) as pieces:
            async for _ in pieces:
                break
    except FaqError as error:
        return Finding(f"모델 {name}", False, error.message)
    return Finding(f"모델 {name}", True, f"{model.name}: 첫 토큰까지 {(time.perf_counter() - started) * 1000:.0f}ms")
