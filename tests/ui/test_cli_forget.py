"""`smartstore forget`: what is kept of a conversation goes from local files, or from Redis and PostgreSQL."""

import asyncio
import time
from pathlib import Path

import pytest
from conftest import settings_for
from databases import PostgresProcess, postgres  # noqa: F401  a fixture
from pydantic import SecretStr
from sqlalchemy import insert

from smartstore_indexing.errors import InvalidRequest
from smartstore_indexing.setting_groups import ChatSettings, RedisSettings
from smartstore_indexing.settings import Settings
from smartstore_ui.chat.database import Database, history_url
from smartstore_ui.chat.tables import schema, steps, threads
from smartstore_ui.forgetting import run_forget
from smartstore_workflows.app import answer_store
from smartstore_workflows.caching import AnswerKey
from smartstore_workflows.events import Passage, RememberedAnswer, Turn
from smartstore_workflows.records import RunRecord
from smartstore_workflows.run_streams import stream_key
from smartstore_workflows.stores import Stores, opened_stores

MINE, OTHERS = "0b8c1f5e-5b0a-4f43-9d1c-3a5b8f0e7a01", "7f0d4d3a-0d55-4f0e-8a43-7c8d9e0f1a02"
SAID = {MINE: "홍길동인데 정산이 안 됩니다", OTHERS: "반품은 어떻게 하나요?"}


@pytest.fixture(params=["files", "servers"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a world, which the environment holds too."""
    monkeypatch.setenv("SMARTSTORE_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if request.param == "files":
        return settings_for(tmp_path)
    redis: RedisSettings = request.getfixturevalue("redis_settings")
    server: PostgresProcess = request.getfixturevalue("postgres")
    url = await server.emptied()
    monkeypatch.setenv("SMARTSTORE_REDIS__URL", redis.url.get_secret_value())
    monkeypatch.setenv("SMARTSTORE_REDIS__PREFIX", redis.prefix)
    monkeypatch.setenv("SMARTSTORE_CHAT__HISTORY_URL", url)
    return settings_for(tmp_path, redis=redis, chat=ChatSettings(history_url=SecretStr(url)))


async def talk(settings: Settings, session_id: str) -> None:
    """Leave of a conversation in every store what an answered and rated question leaves."""
    said = SAID[session_id]
    async with opened_stores(settings) as stores:
        turn = Turn(question=said, standalone=said, answer="답", kind="answered")
        await stores.conversations.append(session_id, turn)
        for number in range(2):
            run_id = f"{session_id}-{number}"
            await stores.records.add(
                RunRecord(
                    run_id=run_id,
                    session_id=session_id,
                    question=said,
                    standalone=said,
                    kind="answered",
                    text="답",
                    model="extractive",
                    cached=False,
                    degraded=False,
                    created_at=time.time(),
                )
            )
            if stores.redis is not None:
                async with stores.redis.use() as client:
                    await client.xadd(stream_key(stores.redis, run_id), {"data": said})
        await stores.records.rate(f"{session_id}-0", -1, said)
        answers = await answer_store(settings, stores)
        assert answers is not None
        answer = RememberedAnswer(
            question=said, text="답", citations=("a",), sources=(), passages=(Passage(faq_id="a", score=1.0),)
        )
        await answers.put(AnswerKey("1", "extractive", said), answer)
    database = await Database.open(history_url(settings))
    async with database.use() as connection:
        thread = {"id": session_id, "created_at": "", "used_at": time.time(), "name": said, "details": {}}
        await connection.execute(insert(threads).values(**thread, deleted=False))
        step = {"id": f"step-{session_id}", "thread_id": session_id, "created_at": "", "type": "user_message"}
        await connection.execute(insert(steps).values(**step, output=said, fields={}))
    await database.close()


async def everything(settings: Settings) -> str:
    """Return all that the stores hold, as text."""
    found: list[object] = []
    async with opened_stores(settings) as stores:
        found += await (_of_redis(stores) if stores.redis is not None else _of_file(stores))
    database = await Database.open(history_url(settings))
    async with database.use() as connection:
        for table in schema.sorted_tables:
            found += (await connection.execute(table.select())).all()
    await database.close()
    return repr(found)


async def _of_file(stores: Stores) -> list[object]:
    assert stores.file is not None
    tables = ("turns", "sessions", "runs", "answers")
    return [
        await stores.file.read(lambda connection, table=table: connection.execute(f"SELECT * FROM {table}").fetchall())
        for table in tables
    ]


async def _of_redis(stores: Stores) -> list[object]:
    assert stores.redis is not None
    async with stores.redis.use() as client:
        keys = [key async for key in client.scan_iter(f"{stores.redis.key('')}*")]
        read = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"stream": client.xrange,
        }
        values = [await read[await client.type(key)](key) for key in keys]
    return [(key.decode(), _decoded(value)) for key, value in zip(keys, values, strict=True)]


def _decoded(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else _parts(value)


def _parts(value: object) -> object:
    if isinstance(value, dict):
        return {repr(_decoded(key)): _decoded(part) for key, part in value.items()}
    return [_decoded(part) for part in value] if isinstance(value, list | tuple | set) else value


async def test_nothing_stays_of_the_conversation_and_all_of_the_others(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for session_id in SAID:
        await talk(settings, session_id)
    before = await everything(settings)
    assert "홍길동" in before
    assert before.count(MINE) >= 4

    assert await asyncio.to_thread(run_forget, MINE) == 0
    said = capsys.readouterr().out
    assert said.startswith("지웠습니다: 대화, 문답 기록과 의견 2건, 채팅 페이지의 대화.\n")
    assert "docs/operations.md" in said

    after = await everything(settings)
    assert "홍길동" not in after
    assert after.count(SAID[OTHERS]) == before.count(SAID[OTHERS])
    # The page's thread leaves its bare id, so that a write that comes late does not bring it back.
    assert after.count(MINE) == 1

    assert await asyncio.to_thread(run_forget, MINE) == 1
    assert "그런 대화가 없습니다" in capsys.readouterr().err


async def test_unknown_conversation_is_said(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    await talk(settings, OTHERS)
    before = await everything(settings)
    assert await asyncio.to_thread(run_forget, "없는 대화") == 1
    assert "그런 대화가 없습니다" in capsys.readouterr().err
    assert await everything(settings) == before


def test_impossible_id_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        run_forget("가" * 201)
