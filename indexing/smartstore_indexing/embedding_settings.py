"""The group of settings of the embedding model that questions are searched with."""

from typing import Literal

from pydantic import Field, SecretStr

from smartstore_indexing.setting_groups import Group

DEFAULT_MODEL = "text-embedding-3-small"
# US dollars for a million tokens, as OpenAI's price list had them in 2026 (not the batch API's).
KNOWN_PRICES = {"text-embedding-3-small": 0.02, "text-embedding-3-large": 0.13, "text-embedding-ada-002": 0.10}


class EmbeddingSettings(Group):
    """The embedding model; what is not the shipped one's is for `openai` and `huggingface` alone."""

    kind: Literal["local", "openai", "huggingface"] = Field(
        "local",
        description="검색에 쓰는 임베딩 모델: local(함께 들어 있는 모델), openai(OpenAI 또는 호환 서버), "
        "huggingface(이 프로세스에서 실행, 추가 설치 필요). 바꾸면 다시 색인해야 합니다.",
    )
    model: str = Field("", description=f"임베딩 모델의 이름. 비우면 openai는 {DEFAULT_MODEL}입니다.")
    url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="임베딩 서버의 주소 (예: http://tei:8080/v1). 비우면 OPENAI_BASE_URL입니다.",
    )
    api_key: SecretStr = Field(
        SecretStr(""),
        description="임베딩 서버의 키. 비우면 OPENAI_API_KEY를 쓰고, EMBEDDING__URL을 적었으면 키 없이 부릅니다.",
    )
    dimensions: int = Field(0, ge=0, le=32_768, description="요청할 벡터의 차원. 0이면 모델의 차원 그대로입니다.")
    batch: int = Field(
        100,
        ge=1,
        le=2_048,
        description="호출 하나에 보내는 글의 수. Hugging Face TEI는 따로 설정하지 않으면 32까지 받습니다.",
    )
    timeout_seconds: float = Field(
        30.0, gt=0, le=300, description="임베딩 호출 하나의 제한 시간(초). 질문은 5초를 넘기지 않습니다."
    )
    max_retries: int = Field(5, ge=0, le=20, description="호출이 실패하거나 한도(429)에 걸렸을 때 다시 시도하는 횟수.")
    price_per_million_tokens: float = Field(
        0.0,
        ge=0,
        le=1_000,
        description="임베딩 100만 토큰의 값(달러). 0이면 OpenAI 모델만 알려진 값으로 예상 비용을 말합니다.",
    )

    @property
    def name(self) -> str:
        """Return the model's name, "" where Hugging Face's has none."""
        return self.model or (DEFAULT_MODEL if self.kind == "openai" else "")

    @property
    def price(self) -> float | None:
        """Return US dollars for a million tokens, None where nothing says what they cost."""
        return self.price_per_million_tokens or KNOWN_PRICES.get(self.name)
