"""The groups of settings of the models that write answers."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from smartstore_indexing.setting_groups import Group


class ModelSettings(Group):
    """What every model has; prices are in US dollars for a million tokens."""

    temperature: float = Field(0.1, ge=0, le=2, description="낮을수록 같은 질문에 같은 답을 합니다.")
    max_tokens: int = Field(800, ge=16, le=16_384, description="답변 하나의 최대 토큰 수.")
    context_window: int = Field(128_000, ge=2_048, description="모델이 읽을 수 있는 토큰 수.")
    timeout_seconds: float = Field(30.0, gt=0, le=300, description="모델이 말없이 있어도 되는 시간(초).")
    max_retries: int = Field(1, ge=0, le=5, description="첫 토큰 전에 실패했을 때 다시 시도하는 횟수.")
    max_at_once: int = Field(
        64, ge=1, le=10_000, description="한 프로세스가 한꺼번에 부르는 수. 넘으면 위의 시간까지 기다립니다."
    )
    price_input: float = Field(0.0, ge=0, description="입력 100만 토큰의 값(달러). 비교 보고서에 씁니다.")
    price_output: float = Field(0.0, ge=0, description="출력 100만 토큰의 값(달러).")

    @model_validator(mode="after")
    def _answer_leaves_room(self) -> Self:
        if self.context_window < 2 * self.max_tokens:
            raise ValueError("CONTEXT_WINDOW는 MAX_TOKENS의 두 배 이상이어야 합니다")
        return self


class OpenAISettings(ModelSettings):
    """The OpenAI model, used when there is a key."""

    model: str = Field("gpt-4.1-mini", min_length=1, description="OpenAI 모델 이름.")
    price_input: float = Field(0.4, ge=0, description="입력 100만 토큰의 값(달러). 기본값은 gpt-4.1-mini의 값입니다.")
    price_output: float = Field(1.6, ge=0, description="출력 100만 토큰의 값(달러).")


class VllmSettings(ModelSettings):
    """Qwen3-32B, or another model, on a vLLM server; used when there is its address."""

    url: str = Field("", description="vLLM 주소 (예: http://vllm:8000/v1). 비우면 쓰지 않습니다.")
    model: str = Field("Qwen/Qwen3-32B", min_length=1, description="vLLM이 서비스하는 모델의 이름.")
    api_key: SecretStr = Field(SecretStr(""), description="vLLM을 --api-key로 시작했을 때의 키.")
    adapters: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63}(,[A-Za-z0-9][A-Za-z0-9._-]{0,63})*)?$",
        description="--lora-modules로 올린 LoRA 어댑터의 이름(쉼표로 구분). 저마다 고를 수 있는 모델이 됩니다.",
    )
    context_window: int = Field(32_768, ge=2_048, description="모델이 읽을 수 있는 토큰 수.")


class CompatibleSettings(ModelSettings):
    """Another server that speaks OpenAI's protocol; used when there are its address and a model."""

    url: str = Field("", description="그 밖의 OpenAI 호환 서버의 주소. 비우면 쓰지 않습니다.")
    model: str = Field("", description="그 서버의 모델 이름.")
    api_key: SecretStr = Field(SecretStr(""), description="그 서버의 키.")
    context_window: int = Field(32_768, ge=2_048, description="모델이 읽을 수 있는 토큰 수.")
