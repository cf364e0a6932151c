"""`smartstore queue dead`: what was given up is listed with its reason, and goes back to its queue when asked."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from brokers import PASSWORD, RabbitProcess
from conftest import free_port
from program import Result, World
from pydantic import SecretStr

from smartstore_indexing.broker import Broker
from smartstore_indexing.errors import InvalidRequest, Misconfigured, StoreUnavailable, UnknownResource
from smartstore_indexing.queues import ANSWER_REQUESTED, ANSWERS, INDEX, INDEX_REQUESTED, Delivery, work_queues
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_ui.commands import parser
from smartstore_ui.dead_letters import run_dead

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(300)]
HIDDEN = "\x1b[2J지운다"


async def give_up(settings: RabbitMQSettings) -> None:
    """Leave two dead letters of the index queue and one of the answers'."""
    broker = Broker(settings, work_queues(settings.max_answers))

    async def refuse(delivery: Delivery) -> None:
        raise InvalidRequest(f"{delivery.message_id}은(는) 읽을 수 없습니다.")

    await broker.publish(INDEX_REQUESTED, b'{"source": "a.csv"}', message_id="index-1")
    await broker.publish(INDEX_REQUESTED, "\xff".encode("latin-1"), message_id=HIDDEN)
    await broker.publish(ANSWER_REQUESTED, '{"question": "제 번호는 010-1234-5678입니다"}'.encode(), message_id="답-1")
    stopping = asyncio.Event()
    consumers = [
        broker.consume(name, refuse, prefetch=1, stopping=stopping, drain_seconds=5.0) for name in (INDEX, ANSWERS)
    ]
    running = asyncio.gather(*consumers)
    async with asyncio.timeout(30):
        while [len(await broker.dead_letters(name, limit=3)) for name in (INDEX, ANSWERS)] != [2, 1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        stopping.set()
        await running
    await broker.close()


@dataclass(frozen=True)
class Given:
    """A broker with dead letters, and a world for the program."""

    world: World
    variables: dict[str, str]


@pytest.fixture(scope="module")
async def given(rabbit: RabbitProcess, tmp_path_factory: pytest.TempPathFactory) -> Given:
    settings = RabbitMQSettings(url=SecretStr(rabbit.url), prefix=f"test-{secrets.token_hex(8)}")
    await give_up(settings)
    variables = {"SMARTSTORE_RABBITMQ__URL": rabbit.url, "SMARTSTORE_RABBITMQ__PREFIX": settings.prefix}
    return Given(World.make(tmp_path_factory.mktemp("queue") / "world"), variables)


@pytest.fixture(scope="module")
async def results(given: Given) -> dict[str, Result]:
    """Return what came of the commands, one after the other: a list holds what it shows, so that two do not share."""

    def run(*arguments: str) -> Result:
        return given.world.run("queue", "dead", *arguments, **given.variables)

    def runs() -> dict[str, Result]:
        return {
            "all": run(),
            "json": run("--json"),
            "requeued": run("--requeue", "index-1"),
            "after": run("--queue", "index"),
            "batch": run("--queue=answers.batch"),
        }

    found = await asyncio.to_thread(runs)
    broker = Broker(RabbitMQSettings.model_validate(named(given.variables)), work_queues(1_000))
    found["waiting"] = Result(await broker.depth(INDEX), "", "")
    await broker.close()
    return found


def named(variables: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix("SMARTSTORE_RABBITMQ__").lower(): of for name, of in variables.items()}


def test_dead_letters_of_all_queues_are_listed_with_their_reason(results: dict[str, Result]) -> None:
    assert results["all"].code == 0
    first, second, third = results["all"].out.splitlines()
    assert first.startswith("index  index-1  20")
    assert first.endswith("시도 1번  index-1은(는) 읽을 수 없습니다.")
    assert "\x1b" not in second
    assert third.startswith("answers  답-1")


def test_json_tells_all_of_a_dead_letter(results: dict[str, Result]) -> None:
    first, second, _ = results["json"].events
    assert first.pop("died_at").startswith("20")
    assert first == {
        "queue": "index",
        "id": "index-1",
        "reason": "index-1은(는) 읽을 수 없습니다.",
        "attempts": 1,
        "body": '{"source": "a.csv"}',
    }
    assert second["id"] == HIDDEN


def test_question_is_not_shown(results: dict[str, Result]) -> None:
    letter = results["json"].events[2]
    assert (letter["queue"], letter["id"]) == ("answers", "답-1")
    assert "5678" not in results["json"].out


def test_dead_letter_goes_back_to_its_queue(results: dict[str, Result]) -> None:
    assert results["requeued"].code == 0
    assert "index-1을(를) index 큐로 돌려보냈습니다" in results["requeued"].out
    assert len(results["after"].out.splitlines()) == 1
    assert results["waiting"].code == 1


def test_queue_without_dead_letters_says_so(results: dict[str, Result]) -> None:
    assert (results["batch"].code, results["batch"].out) == (0, "포기한 메시지가 없습니다.\n")


def test_dead_letter_of_an_unknown_id_is_said(given: Given, run: Callable[..., int]) -> None:
    with pytest.raises(UnknownResource, match="ID가 없음인 메시지가 없습니다"):
        run(given.variables, requeue="없음")


def test_without_a_broker_the_setting_is_named(run: Callable[..., int]) -> None:
    with pytest.raises(Misconfigured, match="SMARTSTORE_RABBITMQ__URL"):
        run({})


def test_broker_that_is_away_is_said(run: Callable[..., int]) -> None:
    with pytest.raises(StoreUnavailable, match="RabbitMQ가 응답하지 않습니다"):
        run({"SMARTSTORE_RABBITMQ__URL": f"amqp://127.0.0.1:{free_port()}/"})


def test_broker_that_refuses_is_said_without_the_password(given: Given, run: Callable[..., int]) -> None:
    wrong = given.variables["SMARTSTORE_RABBITMQ__URL"].replace(f":{PASSWORD}@", ":secret@")
    with pytest.raises(Misconfigured, match="거절했습니다") as refusal:
        run({"SMARTSTORE_RABBITMQ__URL": wrong})
    assert "secret" not in refusal.value.message


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Return what runs the command in this process, in a folder without a .env file."""

    def runs(variables: dict[str, str], *, requeue: str | None = None) -> int:
        monkeypatch.chdir(tmp_path)
        for name, of in variables.items():
            monkeypatch.setenv(name, of)
        return run_dead(None, as_json=False, requeue=requeue)

    return runs


@pytest.mark.parametrize("call", [["queue"], ["queue", "dead"], ["reindex"], ["worker"]], ids=" ".join)
def test_help_is_korean(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*call, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"사용법: smartstore {' '.join(call)}")
