"""Embedding models other than the shipped one, against the scripted server: calls, faults, and whose index it is."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import ModelServer, free_port, settings_for, wait_until
from served import ModelSwitch, scripted_model

from smartstore_indexing.embedders import opened_embedder
from smartstore_indexing.embedding import DIMENSIONS, MODEL_NAME, E5Embedding, Embedder, QueryVectors
from smartstore_indexing.embedding_settings import EmbeddingSettings
from smartstore_indexing.errors import Conflict, FaqError, IndexOutdated, Misconfigured, ModelUnavailable
from smartstore_indexing.nodes import PARTS
from smartstore_indexing.settings import Settings
from smartstore_indexing.summaries import IndexSummary
from smartstore_workflows.app import Services, build

FAQS = {
    "영업시간이 어떻게 되나요?": "오전 9시부터 오후 6시까지 문을 엽니다.",
    "주차할 수 있나요?": "건물 뒤에 두 시간까지 무료로 댈 수 있습니다.",
    "예약은 어떻게 하나요?": "전화로 이틀 전까지 예약해 주세요.",
    "포장이 되나요?": "모든 차림을 포장해 드립니다.",
    "강아지와 함께 가도 되나요?": "마당 자리에서는 함께하실 수 있습니다.",
}
STUB_DIMENSIONS = 1_536
SECRET = "sk-secret-of-the-tests"
# The model, and what the person is told of it.
FAULTS = {
    "stub-429": "사용 한도를 넘었습니다",
    "stub-500": "서버에 오류가 있습니다",
    "stub-401": "키를 거절했습니다",
    "stub-hang": "제한 시간 안에 답하지 않았습니다",
}
GARBAGE = {
    "no JSON": "{broken",
    "a page": "<html></html>",
    "an array": "[]",
    "null": "null",
    "no data": '{"data": null}',
    "fewer vectors": '{"data": [{"embedding": [1.0, 0.0]}]}',
    "another length": '{"data": [{"embedding": [1.0, 0.0]}, {"embedding": [1.0]}]}',
    "words": '{"data": [{"embedding": ["a", "b"]}, {"embedding": ["c", "d"]}]}',
    "no direction": '{"data": [{"embedding": [0.0, 0.0]}, {"embedding": [1.0, 0.0]}]}',
    "not finite": '{"data": [{"embedding": [1e60, 0.0]}, {"embedding": [1.0, 0.0]}]}',
    "no vector": '{"data": [{"embedding": []}, {"embedding": []}]}',
}


def settings_of(folder: Path, url: str, **embedding: object) -> Settings:
    """Return settings that search with a model of an OpenAI-compatible server, by default `stub`."""
    chosen = {"kind": "openai", "model": "stub", "url": url, "max_retries": 0, **embedding}
    return settings_for(folder, embedding=EmbeddingSettings.model_validate(chosen))


@asynccontextmanager
async def embedder_at(url: str, **embedding: object) -> AsyncIterator[Embedder]:
    """Yield the embedder of those settings."""
    async with opened_embedder(settings_of(Path(), url, **embedding), local=E5Embedding()) as opened:
        yield opened


@asynccontextmanager
async def server_of(body: str, heard: list[bytes] | None = None) -> AsyncIterator[str]:
    """Serve one reply to every request, and keep what was asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        kind = "text/html" if body.startswith("<") else "application/json"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def calls(server: ModelServer) -> int:
    return int(json.loads(server.get("/stub/stats")).get("embeddings", 0))


@pytest.fixture
def switch(model_server: ModelServer) -> Iterator[ModelSwitch]:
    """Stand before the scripted server: its model of that name can fail and mend."""
    found = ModelSwitch(int(model_server.url.split(":")[2].split("/")[0]))
    yield found
    found.close()


def written(folder: Path, table: dict[str, str]) -> Path:
    path = folder / "faq.jsonl"
    rows = (json.dumps({"question": question, "answer": answer}) for question, answer in table.items())
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


async def index(settings: Settings, table: dict[str, str]) -> IndexSummary:
    """Index a table as a process of its own would."""
    async with build(settings) as services:
        return await services.builder.build(written(settings.data_dir, table))


async def refused(services: Services, kind: type[FaqError]) -> str:
    """Return why the index cannot be used."""
    with pytest.raises(kind) as caught:
        await services.retriever.retrieve("주차할 수 있나요?")
    return caught.value.message


async def titles(services: Services, question: str) -> list[str]:
    """Return the titles of what is found for a question, best first."""
    found = await services.retriever.retrieve(question)
    return [found.catalog[passage.faq_id].title for passage in found.passages]


# Calls


async def test_texts_go_in_batches_and_keep_their_order(model_server: ModelServer) -> None:
    texts = [f"글 {number}" for number in range(25)]
    async with embedder_at(model_server.url, batch=10) as embedder:
        before = calls(model_server)
        vectors = await embedder.aget_text_embedding_batch(texts)
        assert calls(model_server) - before == 3
        alone = await embedder.aget_query_embeddings(texts[-1:])
    assert np.allclose(vectors[-1], alone[0], atol=1e-6)
    assert len({len(vector) for vector in vectors}) == 1
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_other_dimensions_are_asked_for(model_server: ModelServer) -> None:
    async with embedder_at(model_server.url, dimensions=256) as embedder:
        assert (await embedder.aget_query_embeddings(["가", "나"])).shape == (2, 256)
        assert embedder.model_name == f"stub@256+{MODEL_NAME}"


async def test_server_that_heeds_no_dimensions_is_told_of(model_server: ModelServer) -> None:
    async with (
        server_of('{"data": [{"embedding": [0.6, 0.8, 0.0]}]}') as url,
        embedder_at(url, dimensions=2) as embedder,
    ):
        with pytest.raises(Misconfigured, match="DIMENSIONS"):
            await embedder.aget_query_embeddings(["가"])


async def test_vectors_of_any_length_are_made_unit_vectors() -> None:
    async with server_of('{"data": [{"embedding": [3, 4]}]}') as url, embedder_at(url) as embedder:
        assert np.allclose(await embedder.aget_text_embedding_batch(["가"]), [[0.6, 0.8]])


async def test_text_that_utf_8_cannot_hold_embeds_all_the_same(model_server: ModelServer) -> None:
    async with embedder_at(model_server.url) as embedder:
        broken, whole = await embedder.aget_query_embeddings(["가\ud800나", "가나"])
    assert np.array_equal(broken, whole)


async def test_questions_that_wait_share_a_call(model_server: ModelServer) -> None:
    async with embedder_at(model_server.url, batch=50) as embedder:
        vectors = QueryVectors(embedder, at_once=embedder.embed_batch_size)
        before = calls(model_server)
        found = await asyncio.gather(*(vectors.of(f"질문 {number}") for number in range(50)))
        assert calls(model_server) - before <= 2
    assert {vector.shape for vector in found} == {(STUB_DIMENSIONS,)}


# Faults


async def test_call_over_the_limit_waits_as_long_as_the_server_says(
    model_server: ModelServer, switch: ModelSwitch
) -> None:
    async with embedder_at(switch.url, model=ModelSwitch.NAME.decode(), max_retries=2) as embedder:
        before, started = calls(model_server), time.monotonic()
        with switch.model("stub-429"):
            asked = asyncio.create_task(embedder.aget_text_embedding_batch(["가"]))
            await asyncio.to_thread(wait_until, lambda: calls(model_server) > before)
        assert len((await asked)[0]) == STUB_DIMENSIONS
    assert calls(model_server) - before == 2
    assert time.monotonic() - started >= 1.0  # Retry-After: 1


async def test_call_that_failed_once_is_made_again(model_server: ModelServer) -> None:
    async with embedder_at(model_server.url, model="stub-flaky", max_retries=2) as embedder:
        for _ in range(2):  # whichever turn it is of
            assert len((await embedder.aget_text_embedding_batch(["가"]))[0]) == STUB_DIMENSIONS


async def test_retries_do_not_multiply(model_server: ModelServer) -> None:
    async with embedder_at(model_server.url, model="stub-500", max_retries=1) as embedder:
        before = calls(model_server)
        with pytest.raises(ModelUnavailable):
            await embedder.aget_text_embedding_batch(["가"])
    assert calls(model_server) - before == 2


@pytest.mark.parametrize("model", FAULTS)
async def test_fault_is_model_unavailable_and_says_what_is_wrong(model_server: ModelServer, model: str) -> None:
    async with embedder_at(model_server.url, model=model, api_key=SECRET, timeout_seconds=0.5) as embedder:
        with pytest.raises(ModelUnavailable) as of_texts:
            await embedder.aget_text_embedding_batch(["가"])
        with pytest.raises(ModelUnavailable) as of_questions:
            await embedder.aget_query_embeddings(["가"])
    assert of_texts.value.message == of_questions.value.message
    assert FAULTS[model] in of_texts.value.message
    assert model in of_texts.value.message
    assert SECRET not in of_texts.value.message


async def test_question_waits_for_one_retry_and_no_longer_than_it_may(
    model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with embedder_at(model_server.url, model="stub-500", max_retries=20) as embedder:
        before = calls(model_server)
        with pytest.raises(ModelUnavailable, match="서버에 오류"):
            await embedder.aget_query_embeddings(["가"])
        assert calls(model_server) - before == 2
    monkeypatch.setattr("smartstore_indexing.openai_embedder.QUESTION_SECONDS", 0.3)
    async with embedder_at(model_server.url, model="stub-hang") as embedder:
        with pytest.raises(ModelUnavailable, match="제한 시간"):
            await embedder.aget_query_embeddings(["가"])


async def test_server_that_nobody_runs_is_named_as_such() -> None:
    async with embedder_at(f"http://127.0.0.1:{free_port()}/v1") as embedder:
        with pytest.raises(ModelUnavailable, match=r"연결할 수 없습니다.*SMARTSTORE_EMBEDDING__URL"):
            await embedder.aget_text_embedding_batch(["가"])


async def test_model_that_the_server_does_not_have_is_named_with_the_status(model_server: ModelServer) -> None:
    async with embedder_at(model_server.url.replace("/v1", "/v2")) as embedder:
        with pytest.raises(ModelUnavailable, match=r"HTTP 404.*SMARTSTORE_EMBEDDING__URL"):
            await embedder.aget_text_embedding_batch(["가"])


@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE)
async def test_reply_that_is_no_vectors_is_model_unavailable(reply: str) -> None:
    async with server_of(reply) as url, embedder_at(url) as embedder:
        with pytest.raises(ModelUnavailable, match="벡터가 아닌 것"):
            await embedder.aget_text_embedding_batch(["가", "나"])


# Settings


async def test_openai_without_a_key_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"OPENAI_API_KEY.*SMARTSTORE_EMBEDDING__API_KEY"):
        async with build(settings_of(tmp_path, "")):
            pass


@pytest.mark.parametrize(
    ("own_url", "own_key", "sent"),
    [
        (False, "", "Bearer sk-openai"),
        (False, "sk-own", "Bearer sk-own"),
        (True, "sk-own", "Bearer sk-own"),
        (True, "", "Bearer none"),
    ],
)
async def test_key_of_openai_goes_nowhere_else(own_url: bool, own_key: str, sent: str) -> None:
    heard: list[bytes] = []
    async with server_of('{"data": [{"embedding": [1]}]}', heard) as url:
        chosen = EmbeddingSettings.model_validate(
            {"kind": "openai", "url": url if own_url else "", "api_key": own_key, "max_retries": 0}
        )
        settings = settings_for(Path(), embedding=chosen, openai_api_key="sk-openai", openai_base_url=url)
        async with opened_embedder(settings, local=E5Embedding()) as embedder:
            await embedder.aget_query_embeddings(["가"])
    assert f"authorization: {sent.lower()}" in heard[0].decode().lower()


@pytest.mark.parametrize(
    ("model", "said"), [("", "SMARTSTORE_EMBEDDING__MODEL"), ("any/model", r"uv pip install .*\[huggingface\]")]
)
async def test_hugging_face_says_what_it_lacks(model: str, said: str) -> None:
    chosen = EmbeddingSettings.model_validate({"kind": "huggingface", "model": model})
    with pytest.raises(Misconfigured, match=said):
        async with opened_embedder(settings_for(Path(), embedding=chosen), local=E5Embedding()):
            pass


async def test_shipped_encoder_is_used_itself_where_nothing_is_said() -> None:
    local = E5Embedding()
    async with opened_embedder(settings_for(Path()), local=local) as embedder:
        assert embedder is local


# Whose index it is


@pytest.mark.slow
async def test_what_is_indexed_is_found_and_judged_as_with_the_shipped_encoder(
    tmp_path: Path, model_server: ModelServer
) -> None:
    settings = settings_of(tmp_path / "other", model_server.url, batch=4)
    shipped = settings_for(tmp_path / "shipped")
    for each in (settings, shipped):
        each.data_dir.mkdir()
    async with build(settings) as services, build(shipped) as usual:
        before = calls(model_server)
        told: list[tuple[str, int, int]] = []
        await services.builder.build(
            written(tmp_path, FAQS), progress=lambda stage, done, total: told.append((stage, done, total))
        )
        await usual.builder.build(written(tmp_path, FAQS))
        assert calls(model_server) - before == 3  # two texts of five FAQs, four a call
        characters = sum(2 * len(question) + 1 + len(answer) for question, answer in FAQS.items())
        assert told[0] == ("plan", 10, characters)
        assert [entry for entry in told if entry[0] == "embed"] == [("embed", n, 10) for n in (4, 8, 10)]
        snapshot = await services.reader.snapshot()
        assert (snapshot.manifest.embedder, snapshot.manifest.dimensions) == (f"stub+{MODEL_NAME}", STUB_DIMENSIONS)
        expected = (await usual.reader.snapshot()).parts
        for part in PARTS:
            assert snapshot.parts[part].vectors.shape == (5, STUB_DIMENSIONS)
            assert np.allclose(snapshot.parts[part].local, expected[part].vectors, atol=1e-6)
        for question in FAQS:
            assert (await titles(services, question))[0] == question
        asked = "차를 댈 곳이 있나요?"
        evidence, usual_evidence = [(await each.retriever.retrieve(asked)).evidence for each in (services, usual)]
        assert evidence.best_cosine == pytest.approx(usual_evidence.best_cosine, abs=1e-5)
        assert evidence.lead == pytest.approx(usual_evidence.lead, abs=1e-5)


@pytest.mark.slow
async def test_change_of_embedder_is_noticed_and_mended_by_the_next_build(
    tmp_path: Path, model_server: ModelServer
) -> None:
    local = settings_for(tmp_path)
    served = settings_of(tmp_path, model_server.url)
    smaller = settings_of(tmp_path, model_server.url, dimensions=64)
    await index(local, FAQS)
    before = MODEL_NAME
    for settings, name, dimensions in (
        (served, f"stub+{MODEL_NAME}", STUB_DIMENSIONS),
        (smaller, f"stub@64+{MODEL_NAME}", 64),
        (local, MODEL_NAME, DIMENSIONS),
    ):
        async with build(settings) as services:
            message = await refused(services, IndexOutdated)
            assert before in message
            assert name in message
            assert "smartstore index" in message
            summary = await services.builder.build(written(tmp_path, FAQS))
            assert (summary.embedded, summary.switched) == (5, True)
            snapshot = await services.reader.snapshot()
            assert {snapshot.parts[part].vectors.shape for part in PARTS} == {(5, dimensions)}
            assert (await titles(services, "주차할 수 있나요?"))[0] == "주차할 수 있나요?"
        before = name


@pytest.mark.slow
async def test_only_what_changed_is_embedded_and_counted(tmp_path: Path, model_server: ModelServer) -> None:
    settings = settings_of(tmp_path, model_server.url)
    await index(settings, FAQS)
    changed = {**FAQS, "주차할 수 있나요?": "주차장은 없습니다."}
    told: list[tuple[str, int, int]] = []
    async with build(settings) as services:
        old = (await services.reader.snapshot()).parts["answer"]
        before = calls(model_server)
        for _ in range(2):
            await services.builder.build(
                written(tmp_path, changed), progress=lambda stage, done, total: told.append((stage, done, total))
            )
        assert calls(model_server) - before == 1
    assert [entry[:2] for entry in told if entry[0] == "plan"] == [("plan", 2)]
    async with build(settings) as services:
        new = (await services.reader.snapshot()).parts["answer"]
    for place, question in enumerate(FAQS):
        same = np.array_equal(old.vectors[place], new.vectors[place])
        assert same == np.array_equal(old.local[place], new.local[place]) == (question != "주차할 수 있나요?")


@pytest.mark.slow
async def test_other_vectors_under_the_same_name_are_never_mixed(tmp_path: Path, model_server: ModelServer) -> None:
    with scripted_model("--dim", "32") as replaced:
        first = settings_of(tmp_path, model_server.url)
        second = settings_of(tmp_path, replaced.url)
        await index(first, FAQS)
        async with build(second) as services:
            assert "--full" in await refused(services, IndexOutdated)
            with pytest.raises(Conflict, match=r"--full"):
                await services.builder.build(written(tmp_path, {**FAQS, "새 질문": "새 답"}))
        async with build(first) as services:
            assert (await titles(services, "포장이 되나요?"))[0] == "포장이 되나요?"
        async with build(second) as services:
            await services.builder.build(written(tmp_path, FAQS), full=True)
            assert (await services.reader.snapshot()).manifest.dimensions == 32
            assert (await titles(services, "포장이 되나요?"))[0] == "포장이 되나요?"


@pytest.mark.slow
async def test_build_that_fails_or_is_ended_midway_leaves_the_index_in_use(
    tmp_path: Path, switch: ModelSwitch, model_server: ModelServer
) -> None:
    settings = settings_of(tmp_path, switch.url, model=ModelSwitch.NAME.decode(), batch=2)
    await index(settings, FAQS)
    async with build(settings) as services:
        used = [await services.collections.current()]
        path = written(tmp_path, dict.fromkeys(FAQS, "바뀐 답"))

        def break_down(stage: str, done: int, total: int) -> None:
            if stage == "embed":
                switch.fault = "-500"

        with pytest.raises(ModelUnavailable):
            await services.builder.build(path, progress=break_down)
        switch.fault = "-hang"
        before = calls(model_server)
        building = asyncio.create_task(services.builder.build(path))
        await asyncio.to_thread(wait_until, lambda: calls(model_server) > before)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        switch.fault = ""
        assert await services.collections.names() == used
        assert await titles(services, "주차할 수 있나요?")
        assert {faq.answer for faq in await services.retriever.catalog()} == set(FAQS.values())


@pytest.mark.slow
async def test_while_the_model_is_away_the_shipped_encoder_searches(tmp_path: Path, model_server: ModelServer) -> None:
    settings = settings_of(tmp_path, model_server.url)
    await index(settings, FAQS)
    async with build(settings_of(tmp_path, f"http://127.0.0.1:{free_port()}/v1")) as services:
        assert (await titles(services, "차를 댈 곳이 있나요?"))[0] == "주차할 수 있나요?"


@pytest.mark.slow
async def test_golden_questions_go_in_batches_and_find_their_faqs(tmp_path: Path, model_server: ModelServer) -> None:
    golden = tmp_path / "golden.jsonl"
    lines = (json.dumps({"query": question, "gold": [row]}) for row, question in enumerate(FAQS))
    golden.write_text("\n".join(lines), encoding="utf-8")
    settings = settings_of(tmp_path, model_server.url)
    checked = settings.model_copy(
        update={"index": settings.index.model_copy(update={"golden": str(golden), "golden_hit": 1.0})}
    )
    before = calls(model_server)
    assert (await index(checked, FAQS)).switched
    assert calls(model_server) - before == 2
