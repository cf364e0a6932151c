"""Personal data in a question reaches nothing that is kept, logged, shown or sent."""

import json
import logging
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ModelServer, settings_for
from masking_cases import MUST_MASK
from pydantic import SecretStr

from smartstore_indexing.model_settings import OpenAISettings
from smartstore_workflows import Chatbot, wire
from smartstore_workflows.stores import FILE, opened_stores

QUESTION = "미성년자도 판매 회원 등록이 가능한가요?"
SESSION = "privacy"  # no digits: a random name could hold a secret's
IDS = [" ".join(re.findall(r"[!-~]+", text)) or "words" for text, _, _ in MUST_MASK]
LEAST_BYTES = 4  # a shorter fragment may stand in a time or a checksum by chance
# What logs hold beside words: addresses of objects and sockets, the server's ids, times.
MACHINE_NUMBERS = re.compile(
    r"0x[0-9a-f]+|127\.0\.0\.1:\d+|'127\.0\.0\.1', \d+|port=\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|chatcmpl-\w+|\d\d:\d\d:\d\d|\d+\.\d{4,}"
)
# Random digits, of which some spell a fragment of a secret now and then.
STORED_NUMBERS = re.compile(r'[0-9a-f]{32}|"created_at":[0-9.]+')


@pytest.fixture(scope="module")
async def model_bot(
    indexed_dir: Path, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Chatbot]:
    """Yield a bot with a model."""
    folder = Path(shutil.copytree(indexed_dir, tmp_path_factory.mktemp("private") / "data"))
    settings = settings_for(
        folder,
        openai_api_key=SecretStr("sk-test"),
        openai_base_url=model_server.url,
        openai=OpenAISettings(model="stub", max_retries=0),
    )
    async with Chatbot(settings) as opened:
        yield opened


@pytest.fixture
async def private_bot(model_bot: Chatbot, tmp_path: Path) -> AsyncIterator[Chatbot]:
    """Yield the bot with a conversation file of this test's own: it holds nothing but what the test asked."""
    services = model_bot.services
    async with opened_stores(services.settings.model_copy(update={"data_dir": tmp_path})) as stores:
        found = Chatbot(services.settings)
        found._services = replace(services, stores=stores)
        yield found


@pytest.fixture
async def public(private_bot: Chatbot) -> str:
    """Return all text that anybody may see: the FAQ itself."""
    catalog = await private_bot.services.retriever.catalog()
    return "\n".join(f"{faq.id} {faq.title} {faq.answer}" for faq in catalog)


def telling(secrets: Sequence[str], public: str) -> list[str]:
    """Return the fragments that would give the secret away; a year or an area code of the FAQ's own does not."""
    return [secret for secret in secrets if len(secret.encode()) >= LEAST_BYTES and secret not in public]


def leaked(secrets: Sequence[str], text: str) -> list[str]:
    return [secret for secret in secrets if secret in text]


def shown(events: Sequence[wire.StreamEvent]) -> str:
    """Return the events as they go out, without the run's random ids and times."""
    names = ("run_id", "timings_ms", "score")
    bodies = [json.loads(event.to_json())["data"] for event in events]
    return "\n".join(json.dumps(without(body, names), ensure_ascii=False) for body in bodies)


def without(body: object, names: Sequence[str]) -> object:
    if isinstance(body, dict):
        return {name: without(value, names) for name, value in body.items() if name not in names}
    return [without(value, names) for value in body] if isinstance(body, list) else body


def kept(folder: Path) -> str:
    """Return what the conversation file holds, its log beside it included, but for the runs' random ids and times."""
    files = sorted(folder.glob(f"{FILE}*"))
    assert files
    return STORED_NUMBERS.sub("", "\n".join(file.read_bytes().decode("utf-8", "replace") for file in files))


async def ask(bot: Chatbot, question: str, **arguments: str) -> list[wire.StreamEvent]:
    return [event async for event in bot.stream(question, session_id=SESSION, **arguments)]


@pytest.mark.parametrize(
    ("text", "secrets", "label", "model"),
    [(*case, "extractive") for case in MUST_MASK] + [(*case, "openai") for case in MUST_MASK[::4]],
    ids=[*IDS, *(f"model {name}" for name in IDS[::4])],
)
async def test_secret_reaches_no_event_no_file_no_log_and_no_model(
    private_bot: Chatbot,
    model_server: ModelServer,
    public: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    secrets: tuple[str, ...],
    label: str,
    model: str,
) -> None:
    secrets_told = telling(secrets, public)
    assert secrets_told
    with caplog.at_level(logging.DEBUG):
        events = await ask(private_bot, f"{QUESTION} {text}", model=model)
    assert events[-1].event == "done"
    assert leaked(secrets_told, shown(events)) == []

    stored = kept(tmp_path)
    assert leaked(secrets_told, stored) == []
    assert label in stored

    out, err = capfd.readouterr()
    logged = "\n".join([caplog.text, out, err])
    assert leaked(secrets_told, MACHINE_NUMBERS.sub("", logged)) == []

    if model == "openai":
        assert caplog.records
        sent = model_server.get("/stub/last")
        assert label in sent
        assert leaked(secrets_told, sent) == []


@pytest.mark.parametrize(("text", "secrets", "label"), MUST_MASK[::8], ids=IDS[::8])
async def test_secret_beside_a_chosen_follow_up_is_masked_too(
    private_bot: Chatbot, public: str, tmp_path: Path, text: str, secrets: tuple[str, ...], label: str
) -> None:
    catalog = await private_bot.services.retriever.catalog()
    events = await ask(private_bot, text, faq_id=catalog.ids[0], model="extractive")
    stored = kept(tmp_path)
    assert leaked(telling(secrets, public), shown(events) + stored) == []
    assert label in stored


async def test_secret_of_an_earlier_turn_stays_masked_in_a_follow_up(
    private_bot: Chatbot, model_server: ModelServer
) -> None:
    await ask(private_bot, f"{QUESTION} 신한 110-123-456789 홍길동", model="openai")
    await ask(private_bot, "그럼 서류는요? 010-9876-5432", model="openai")
    sent = model_server.get("/stub/last")
    assert "[계좌번호]" in sent
    assert "[전화번호]" in sent
    assert leaked(["456789", "9876", "5432"], sent) == []
