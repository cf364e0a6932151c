"""Every setting of the program: SMARTSTORE_… variables, "__" between a group and its field; .env.example lists them."""

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs
from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from smartstore_indexing.embedding_settings import EmbeddingSettings
from smartstore_indexing.errors import Misconfigured
from smartstore_indexing.loading import SAMPLE
from smartstore_indexing.model_settings import CompatibleSettings, ModelSettings, OpenAISettings, VllmSettings
from smartstore_indexing.setting_groups import (
    CacheSettings,
    ChatSettings,
    Group,
    IndexSettings,
    LimitSettings,
    MemorySettings,
    MilvusSettings,
    RabbitMQSettings,
    RedisSettings,
    ServerSettings,
    StepSettings,
    StreamSettings,
    WatchSettings,
    WorkerSettings,
)

PREFIX = "SMARTSTORE_"
ENV_FILE = ".env"
EMBEDDED_MILVUS = "milvus.db"
EXTRACTIVE, OPENAI, VLLM, COMPATIBLE = "extractive", "openai", "vllm", "compatible"
NAMES = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
LOCAL, QUEUE = "local", "queue"


class Settings(BaseSettings):
    """All settings, read once and passed down; secrets never show in a repr."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("smartstore-chatbot"),
        description="내장 저장소(벡터, 대화)를 두는 폴더. 기본값은 사용자 데이터 폴더입니다.",
    )
    faq: Path = Field(
        SAMPLE, description="색인할 FAQ 파일(.pkl, .csv, .jsonl). 기본값은 함께 들어 있는 예시 FAQ입니다."
    )
    model: str = Field(
        "",
        pattern=rf"^({NAMES})?$",
        description="기본 모델: extractive(FAQ 그대로), openai, vllm, compatible 또는 vLLM의 LoRA 어댑터 이름. "
        "비우면 설정된 것 가운데 openai, vllm, compatible의 순서로 고릅니다.",
    )
    fallback: str = Field(
        "",
        pattern=rf"^({NAMES}(,{NAMES})*)?$",
        description="고른 모델이 실패하면 차례로 물을 모델(쉼표로 구분). 모두 실패하면 FAQ에서 그대로 답합니다.",
    )
    answers: str = Field(
        LOCAL,
        pattern=rf"^({LOCAL}|{QUEUE})$",
        description="답을 쓰는 곳: local(이 프로세스) 또는 queue(RabbitMQ의 워커, Redis와 RabbitMQ가 필요합니다).",
    )
    question_timeout_seconds: float = Field(90.0, gt=0, le=600, description="질문 하나의 전체 제한 시간(초).")
    openai_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("OPENAI_API_KEY"),
        description="OpenAI 키. 없으면 FAQ에서 그대로 답합니다.",
    )
    openai_base_url: str = Field(
        "https://api.openai.com/v1",
        validation_alias=AliasChoices("OPENAI_BASE_URL"),
        description="OpenAI 호환 서버의 주소.",
    )
    milvus: MilvusSettings = MilvusSettings()
    openai: OpenAISettings = OpenAISettings()
    vllm: VllmSettings = VllmSettings()
    compatible: CompatibleSettings = CompatibleSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    steps: StepSettings = StepSettings()
    redis: RedisSettings = RedisSettings()
    rabbitmq: RabbitMQSettings = RabbitMQSettings()
    index: IndexSettings = IndexSettings()
    server: ServerSettings = ServerSettings()
    worker: WorkerSettings = WorkerSettings()
    chat: ChatSettings = ChatSettings()
    limits: LimitSettings = LimitSettings()
    stream: StreamSettings = StreamSettings()
    memory: MemorySettings = MemorySettings()
    cache: CacheSettings = CacheSettings()
    watch: WatchSettings = WatchSettings()

    @model_validator(mode="after")
    def _models_are_configured(self) -> "Settings":
        if (self.model == OPENAI or OPENAI in self.fallbacks) and OPENAI not in self.models:
            raise ValueError("MODEL이나 FALLBACK의 openai에는 OPENAI_API_KEY가 필요합니다")
        if bool(self.compatible.url) != bool(self.compatible.model):
            raise ValueError("COMPATIBLE__URL과 COMPATIBLE__MODEL은 함께 써야 합니다")
        adapters = [name for name in self.vllm.adapters.split(",") if name]
        if len({*adapters, EXTRACTIVE, OPENAI, VLLM, COMPATIBLE}) < len(adapters) + 4:
            raise ValueError("VLLM__ADAPTERS의 이름은 서로, 그리고 다른 모델과 달라야 합니다")
        for name in filter(None, [self.model, *self.fallbacks]):
            if name != EXTRACTIVE and name not in self.models:
                can = ", ".join([EXTRACTIVE, *self.models])
                raise ValueError(f"MODEL이나 FALLBACK의 {name}은(는) 설정되어 있지 않습니다. 쓸 수 있는 모델: {can}")
        return self

    @model_validator(mode="after")
    def _timeouts_nest(self) -> "Settings":
        longest = max((model.timeout_seconds for model in self.models.values()), default=0.0)
        others = sum(self.models[name].timeout_seconds for name in self.fallbacks if name != EXTRACTIVE)
        chosen = (self.steps.rewrite, self.steps.rerank, self.steps.scope, self.steps.suggest)
        steps = sum(chosen) * self.steps.timeout_seconds
        if longest + others + steps >= self.question_timeout_seconds:
            raise ValueError(
                "QUESTION_TIMEOUT_SECONDS는 모델의 TIMEOUT_SECONDS에 FALLBACK의 모델마다 그 TIMEOUT_SECONDS를, 켠 "
                "단계마다 STEPS__TIMEOUT_SECONDS를 더한 것보다 길어야 합니다"
            )
        return self

    @model_validator(mode="after")
    def _queue_has_its_servers(self) -> "Settings":
        if self.answers == QUEUE and not (self.redis.url.get_secret_value() and self.rabbitmq.url.get_secret_value()):
            raise ValueError("ANSWERS=queue에는 REDIS__URL과 RABBITMQ__URL이 모두 필요합니다")
        return self

    @property
    def models(self) -> dict[str, ModelSettings]:
        """Return the settings of every model that is configured, by the name that a question chooses it by."""
        found: dict[str, ModelSettings] = {}
        if self.openai_api_key.get_secret_value():
            found[OPENAI] = self.openai
        if self.vllm.url:
            found |= dict.fromkeys([VLLM, *filter(None, self.vllm.adapters.split(","))], self.vllm)
        if self.compatible.url:
            found[COMPATIBLE] = self.compatible
        return found

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Return the models that are asked in turn where the chosen one fails."""
        return tuple(filter(None, self.fallback.split(",")))

    @property
    def default_model(self) -> str:
        """Return the model that answers when a question names none."""
        return self.model or next(iter(self.models), EXTRACTIVE)

    @property
    def milvus_is_embedded(self) -> bool:
        """Tell whether the vectors live in a Milvus Lite file of the data folder."""
        return not self.milvus.uri

    @property
    def milvus_uri(self) -> str:
        """Return the address that the Milvus clients open."""
        return self.milvus.uri or str(self.data_dir / EMBEDDED_MILVUS)


def load_settings(
    environment: Mapping[str, str] | None = None, *, env_file: str | None = ENV_FILE, **overrides: object
) -> Settings:
    """Return the settings of the environment (by default the process's) and .env, overrides first.

    `env_file` None reads no file.

    Raises:
        Misconfigured: a value is out of its bounds, or a SMARTSTORE_ variable has a name that no setting has.
    """
    names = os.environ if environment is None else environment  # noqa: TID251  the one place that may
    known = variables()
    try:
        named = {*names, *(dotenv_values(env_file, encoding="utf-8") if env_file else ())}
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{ENV_FILE} 파일이 UTF-8 텍스트가 아닙니다. UTF-8로 저장해 주세요.") from error
    unknown = sorted(name for name in named if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise Misconfigured(f"모르는 설정입니다: {', '.join(unknown)}. .env.example에서 이름을 확인해 주세요.")
    try:
        kind = Settings if environment is None else _reading(environment)
        return kind(_env_file=env_file, **overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        first = error.errors()[0]
        where = "__".join(str(part) for part in first["loc"]).upper()
        raise Misconfigured(f"설정이 올바르지 않습니다: {where} {first['msg']}".strip()) from error


def variables() -> dict[str, tuple[object, str]]:
    """Return every environment variable's default and description, in the order of the settings."""
    found: dict[str, tuple[object, str]] = {}
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, Group):
            for part, inner in group.model_fields.items():
                found[f"{PREFIX}{name}__{part}".upper()] = (inner.default, inner.description or "")
        else:
            default = None if field.default_factory else field.default
            found[name.upper() if field.validation_alias else f"{PREFIX}{name}".upper()] = (
                default,
                field.description or "",
            )
    return found


def _reading(environment: Mapping[str, str]) -> type[Settings]:
    """Return Settings that read these variables instead of the process's."""

    class Given(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            given = EnvSettingsSource(settings_cls)
            given.env_vars = {name.lower(): value for name, value in environment.items() if value}
            return init_settings, given, dotenv_settings

    return Given
