"""`smartstore doctor`: what is configured, what answers, and what to do about what does not."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import version

from llama_index.core.base.llms.types import ChatMessage

from smartstore_indexing.errors import FaqError
from smartstore_indexing.settings import EXTRACTIVE, Settings, load_settings
from smartstore_workflows.app import Services, build

MARKS = {True: "✓", False: "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `detail` says what to do where `fine` is False."""

    name: str
    fine: bool
    detail: str


def run_doctor() -> int:
    """Print every finding as it is made; return 0 when all are fine, else the exit code of the first that is not."""
    return asyncio.run(_report(load_settings()))


async def _report(settings: Settings) -> int:
    exit_code = 0
    try:
        async with aclosing(_findings(settings)) as findings:
            async for finding in findings:
                sys.stdout.write(f"{MARKS[finding.fine]} {finding.name}: {finding.detail}\n")
                exit_code = exit_code or (0 if finding.fine else 1)
    except FaqError as error:
        sys.stdout.write(f"{MARKS[False]} 시작: {error.message}\n")
        return error.exit_code
    sys.stdout.write("모두 정상입니다.\n" if exit_code == 0 else "문제가 있습니다. 위의 안내를 따라 주세요.\n")
    return exit_code


async def _findings(settings: Settings) -> AsyncGenerator[Finding, None]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("프로그램", True, f"smartstore-chatbot {version('smartstore-chatbot')}, Python {python}")
    yield Finding("데이터 폴더", True, str(settings.data_dir))
    async with build(settings) as services:
        where = "Milvus Lite (내장)" if settings.milvus_is_embedded else settings.milvus_uri
        yield Finding("벡터 저장소", True, f"{where}에 연결했습니다")
        yield await _index(services)
        yield await _embedding(services)
        yield await _model(services)


async def _index(services: Services) -> Finding:
    try:
        manifest = (await services.reader.snapshot()).manifest
    except FaqError as error:
        return Finding("색인", False, error.message)
    return Finding(
        "색인", True, f"FAQ {manifest.faqs:,}건, {manifest.source}, {manifest.built_at}, 버전 {manifest.version}"
    )


async def _embedding(services: Services) -> Finding:
    await services.vectors.of("준비")
    started = time.perf_counter()
    await services.vectors.of("상품은 어떻게 등록하나요?")
    return Finding("임베딩", True, f"질문 하나에 {(time.perf_counter() - started) * 1000:.0f}ms")


async def _model(services: Services) -> Finding:
    if services.model is None:
        return Finding(
            "모델", True, f"{EXTRACTIVE}: FAQ에서 그대로 답합니다 (OPENAI_API_KEY를 설정하면 OpenAI가 답합니다)"
        )
    started = time.perf_counter()
    try:
        async with aclosing(services.model.stream([ChatMessage("'네'라고만 답해 주세요.")])) as pieces:
            async for _ in pieces:
                break
    except FaqError as error:
        return Finding("모델", False, error.message)
    return Finding("모델", True, f"{services.model.name}: 첫 토큰까지 {(time.perf_counter() - started) * 1000:.0f}ms")
