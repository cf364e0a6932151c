"""Settings: names and bounds are checked, secrets never show, and .env.example lists every one."""

import os
import re
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from smartstore_indexing.errors import Misconfigured
from smartstore_indexing.loading import SAMPLE
from smartstore_indexing.setting_groups import Group
from smartstore_indexing.settings import Settings, load_settings, variables

EXAMPLE = ROOT / ".env.example"
SERVERS = (
    *("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MILVUS_ROOT_PASSWORD"),
    *("REDIS_PASSWORD", "RABBITMQ_USER", "RABBITMQ_PASSWORD", "POSTGRES_PASSWORD", "GRAFANA_ADMIN_PASSWORD"),
    *("FAQ", "COMPOSE_PROFILES", "VLLM_QUANTIZATION", "VLLM_GPUS", "VLLM_LORA", "VLLM_LORA_RANK"),
    *("VLLM_ADAPTERS_DIR", "HF_TOKEN"),
)
SECRET = "sk-열려라-참깨"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Return the environment of this test, with no setting in it and no .env file."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):  # noqa: TID251  to take out what the machine has set
        if name in variables() or name.upper().startswith("SMARTSTORE_"):
            monkeypatch.delenv(name)
    return monkeypatch


def complaint() -> str:
    """Return why the settings are refused, having checked that it is a sentence and not a dump."""
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    assert "\n" not in caught.value.message
    assert re.search("[가-힣]", caught.value.message)
    return caught.value.message


def test_defaults_need_nothing_and_name_the_bundled_faq(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert settings.faq == SAMPLE
    assert settings.default_model == "extractive"
    assert settings.milvus_is_embedded
    assert settings.milvus_uri == str(settings.data_dir / "milvus.db")


@pytest.mark.parametrize("name", ["SMARTSTORE_FAQS", "smartstore_data_dri", "SMARTSTORE_", "SMARTSTORE_RABBIT__URL"])
def test_unknown_variable_is_refused_by_its_name(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(name, "1")
    assert name in complaint()
    assert ".env.example" in complaint()


@pytest.mark.parametrize("name", ["SMARTSTORE_MILVUS__URL", "SMARTSTORE_OPENAI__MAX_TOKEN", "SMARTSTORE_MEMORY__"])
def test_misspelt_variable_of_a_group_is_refused_by_its_name(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(name, "1")
    assert name in complaint()


def test_misspelt_variable_of_a_group_in_the_env_file_is_refused(environment: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SMARTSTORE_MILVUS__URL=http://127.0.0.1:19530\n", encoding="utf-8")
    assert "MILVUS__URL" in complaint()


def test_variables_of_others_are_none_of_our_business(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SMARTSTOREFRONT", "1")
    Path(".env").write_text("REDIS_PASSWORD=1\n", encoding="utf-8")
    assert load_settings().default_model == "extractive"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMARTSTORE_MODEL", "gpt"),
        ("SMARTSTORE_QUESTION_TIMEOUT_SECONDS", "0"),
        ("SMARTSTORE_QUESTION_TIMEOUT_SECONDS", "601"),
        ("SMARTSTORE_QUESTION_TIMEOUT_SECONDS", "nan"),
        ("SMARTSTORE_QUESTION_TIMEOUT_SECONDS", "일 분"),
        ("SMARTSTORE_MILVUS__ALIAS", "FAQ"),
        ("SMARTSTORE_MILVUS__ALIAS", "faq-1"),
        ("SMARTSTORE_MILVUS__TIMEOUT_SECONDS", "-1"),
        ("SMARTSTORE_OPENAI__TEMPERATURE", "2.1"),
        ("SMARTSTORE_OPENAI__MAX_TOKENS", "15"),
        ("SMARTSTORE_OPENAI__MAX_RETRIES", "6"),
        ("SMARTSTORE_OPENAI__CONTEXT_WINDOW", "1"),
        ("SMARTSTORE_STEPS__REWRITE", "아마도"),
        ("SMARTSTORE_STEPS__TIMEOUT_SECONDS", "0"),
        ("SMARTSTORE_STEPS__TIMEOUT_SECONDS", "301"),
        ("SMARTSTORE_MEMORY__MAX_TURNS", "0"),
        ("SMARTSTORE_MEMORY__DAYS", "366"),
    ],
)
def test_value_out_of_its_bounds_is_refused_by_its_name(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    assert name.removeprefix("SMARTSTORE_") in complaint()


def test_group_itself_is_no_variable(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SMARTSTORE_MILVUS", SECRET)
    assert "SMARTSTORE_MILVUS" in complaint()
    assert SECRET not in complaint()


def test_unknown_variable_in_the_env_file_is_refused(environment: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SMARTSTORE_FAQS=faq.csv\n", encoding="utf-8")
    assert "SMARTSTORE_FAQS" in complaint()


def test_env_file_in_another_encoding_is_refused(environment: pytest.MonkeyPatch) -> None:
    Path(".env").write_bytes("# 설정\n".encode("cp949"))
    assert "UTF-8" in complaint()


def test_environment_that_is_handed_in_is_the_only_one(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_API_KEY", SECRET)
    environment.setenv("SMARTSTORE_MILVUS__ALIAS", "process")
    settings = load_settings({"SMARTSTORE_MEMORY__DAYS": "7", "smartstore_openai__model": "m", "SMARTSTORE_FAQ": ""})
    assert (settings.memory.days, settings.openai.model, settings.faq) == (7, "m", SAMPLE)
    assert (settings.default_model, settings.milvus.alias) == ("extractive", "smartstore_faq")


def test_model_call_must_end_before_its_question_does(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_API_KEY", SECRET)
    environment.setenv("SMARTSTORE_QUESTION_TIMEOUT_SECONDS", "30")
    environment.setenv("SMARTSTORE_OPENAI__TIMEOUT_SECONDS", "30")
    assert "QUESTION_TIMEOUT_SECONDS" in complaint()
    environment.setenv("SMARTSTORE_OPENAI__TIMEOUT_SECONDS", "29.9")
    assert load_settings().openai.timeout_seconds == 29.9


def test_answer_of_a_model_leaves_room_for_its_prompt(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SMARTSTORE_VLLM__CONTEXT_WINDOW", "2048")
    environment.setenv("SMARTSTORE_VLLM__MAX_TOKENS", "1025")
    assert "CONTEXT_WINDOW" in complaint()
    environment.setenv("SMARTSTORE_VLLM__MAX_TOKENS", "1024")
    assert load_settings().vllm.max_tokens == 1_024


def test_steps_that_are_on_must_end_before_their_question_does(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_API_KEY", SECRET)
    environment.setenv("SMARTSTORE_QUESTION_TIMEOUT_SECONDS", "40")
    environment.setenv("SMARTSTORE_OPENAI__TIMEOUT_SECONDS", "30")
    environment.setenv("SMARTSTORE_STEPS__REWRITE", "true")
    assert load_settings().steps.rewrite
    environment.setenv("SMARTSTORE_STEPS__RERANK", "true")
    assert "STEPS__TIMEOUT_SECONDS" in complaint()
    environment.setenv("SMARTSTORE_STEPS__TIMEOUT_SECONDS", "4.9")
    assert load_settings().steps.rerank


def test_models_that_are_asked_in_turn_must_all_fit_in_their_question(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_API_KEY", SECRET)
    environment.setenv("SMARTSTORE_VLLM__URL", "http://vllm:8000/v1")
    environment.setenv("SMARTSTORE_FALLBACK", "vllm")
    assert load_settings().fallbacks == ("vllm",)
    environment.setenv("SMARTSTORE_QUESTION_TIMEOUT_SECONDS", "60")
    assert "FALLBACK" in complaint()


def test_models_are_those_that_are_configured(environment: pytest.MonkeyPatch) -> None:
    assert (load_settings().default_model, load_settings().models) == ("extractive", {})
    environment.setenv("SMARTSTORE_VLLM__URL", "http://vllm:8000/v1")
    environment.setenv("SMARTSTORE_VLLM__ADAPTERS", "smartstore-faq,smartstore-2")
    assert list(load_settings().models) == ["vllm", "smartstore-faq", "smartstore-2"]
    environment.setenv("OPENAI_API_KEY", SECRET)
    environment.setenv("SMARTSTORE_MODEL", "smartstore-faq")
    assert load_settings().default_model == "smartstore-faq"
    assert next(iter(load_settings().models)) == "openai"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMARTSTORE_MODEL", "vllm"),
        ("SMARTSTORE_FALLBACK", "vllm"),
        ("SMARTSTORE_FALLBACK", "openai,,vllm"),
        ("SMARTSTORE_COMPATIBLE__URL", "http://other:8000/v1"),
        ("SMARTSTORE_COMPATIBLE__MODEL", "qwen"),
        ("SMARTSTORE_VLLM__ADAPTERS", "vllm"),
        ("SMARTSTORE_VLLM__ADAPTERS", "a,a"),
        ("SMARTSTORE_VLLM__ADAPTERS", "a b"),
    ],
)
def test_model_that_cannot_be_asked_is_refused(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    assert name.removeprefix("SMARTSTORE_").split("__")[0] in complaint()


def test_steps_are_off_unless_they_are_turned_on(environment: pytest.MonkeyPatch) -> None:
    steps = load_settings().steps
    assert (steps.rewrite, steps.rerank, steps.timeout_seconds) == (False, False, 5.0)


def test_openai_needs_its_key(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SMARTSTORE_MODEL", "openai")
    assert "OPENAI_API_KEY" in complaint()
    environment.setenv("OPENAI_API_KEY", SECRET)
    assert load_settings().default_model == "openai"


@pytest.mark.parametrize(
    ("key", "model", "default"),
    [
        ("", "", "extractive"),
        (SECRET, "", "openai"),
        (SECRET, "extractive", "extractive"),
        ("", "extractive", "extractive"),
    ],
)
def test_default_model_is_openai_where_there_is_a_key_and_nothing_else_is_said(
    environment: pytest.MonkeyPatch, key: str, model: str, default: str
) -> None:
    environment.setenv("OPENAI_API_KEY", key)
    environment.setenv("SMARTSTORE_MODEL", model)
    assert load_settings().default_model == default


def test_environment_wins_over_the_env_file_and_overrides_over_both(environment: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(f"SMARTSTORE_MILVUS__ALIAS=file\nOPENAI_API_KEY={SECRET}\n", encoding="utf-8")
    assert load_settings().milvus.alias == "file"
    assert load_settings().openai_api_key.get_secret_value() == SECRET
    environment.setenv("SMARTSTORE_MILVUS__ALIAS", "environment")
    environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    settings = load_settings(question_timeout_seconds=45)
    assert settings.milvus.alias == "environment"
    assert settings.openai_base_url == "http://127.0.0.1:9/v1"
    assert settings.question_timeout_seconds == 45


def test_milvus_server_is_used_where_its_address_is_given(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SMARTSTORE_MILVUS__URI", "http://127.0.0.1:19530")
    settings = load_settings()
    assert not settings.milvus_is_embedded
    assert settings.milvus_uri == "http://127.0.0.1:19530"


def test_empty_variable_is_as_good_as_none(environment: pytest.MonkeyPatch) -> None:
    defaults = load_settings()
    for name in variables():
        environment.setenv(name, "")
    assert load_settings() == defaults


@given(secret=st.text(st.characters(categories=["L", "N"]), min_size=8, max_size=30))
def test_secrets_never_show(secret: str) -> None:
    secret = f"비밀{secret}"
    settings = load_settings(
        {},
        env_file=None,
        openai_api_key=SecretStr(secret),
        milvus={"token": SecretStr(f"root:{secret}"), "uri": "http://127.0.0.1:19530"},
    )
    shown = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(settings.model_dump()),
        repr(vars(settings)),
    ]
    assert not [text for text in shown if secret in text]
    assert settings.openai_api_key.get_secret_value() == secret


def test_refused_settings_do_not_show_their_secrets(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPENAI_API_KEY", SECRET)
    environment.setenv("SMARTSTORE_MILVUS__TOKEN", SECRET)
    environment.setenv("SMARTSTORE_OPENAI__TIMEOUT_SECONDS", "300")
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    assert SECRET not in caught.value.message
    assert SECRET not in str(caught.value.__cause__)


def test_settings_cannot_be_changed(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.model = "openai"  # type: ignore[misc]  # which is what is tested
    with pytest.raises(ValueError, match="frozen"):
        settings.milvus.alias = "faq"  # type: ignore[misc]


def test_every_setting_has_a_description_and_every_number_a_bound() -> None:
    groups = [field.annotation for field in Settings.model_fields.values()]
    models: tuple[type[BaseModel], ...] = (
        Settings,
        *(group for group in groups if isinstance(group, type) and issubclass(group, Group)),
    )
    fields = [(name, field) for model in models for name, field in model.model_fields.items()]
    numbers = [(name, field) for name, field in fields if field.annotation in (int, float)]
    assert len(numbers) >= 8
    assert not [name for name, field in numbers if not field.metadata]
    assert not [name for name, (_, description) in variables().items() if not re.search("[가-힣]", description)]


def test_env_example_lists_every_setting_with_its_default_under_its_description() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    listed = {line.removeprefix("# ").partition("=")[0]: place for place, line in enumerate(lines) if "=" in line}
    assert set(listed) == {*variables(), *SERVERS}
    for name, (default, description) in variables().items():
        assert lines[listed[name] - 1] == f"# {description}", name
        value = lines[listed[name]].partition("=")[2]
        assert value == ("" if isinstance(default, (Path, SecretStr)) or default is None else str(default)), name


def test_env_example_as_it_stands_changes_nothing(environment: pytest.MonkeyPatch) -> None:
    defaults = load_settings()
    Path(".env").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_settings() == defaults
    # And so does every line of it put in force, but for the servers' passwords, which are compose.yaml's.
    in_force = re.sub(r"(?m)^# (?=[A-Z0-9_]+=)", "", EXAMPLE.read_text(encoding="utf-8"))
    Path(".env").write_text(in_force, encoding="utf-8")
    assert load_settings() == defaults
