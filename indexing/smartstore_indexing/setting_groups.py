"""The groups of settings, one for each part of the program; settings.py reads them."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Group(BaseModel):
    """A group of settings; a misspelt name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MilvusSettings(Group):
    """Where the vectors live."""

    uri: str = Field("", description="Milvus 주소. 비우면 데이터 폴더의 Milvus Lite 파일을 씁니다.")
    token: SecretStr = Field(SecretStr(""), description="Milvus 인증 토큰 (사용자:비밀번호).")
    alias: str = Field(
        "smartstore_faq", pattern=r"^[a-z][a-z0-9_]{0,63}$", description="검색이 읽는 별칭(alias)의 이름."
    )
    timeout_seconds: float = Field(30.0, gt=0, le=300, description="Milvus 호출 하나의 제한 시간(초).")


class StepSettings(Group):
    """The optional steps that the model makes around an answer; each is one more call."""

    rewrite: bool = Field(
        False, description="true면 앞 대화에 기대는 질문을 모델이 홀로 뜻이 통하는 질문으로 고쳐 씁니다."
    )
    rerank: bool = Field(False, description="true면 찾은 FAQ의 순서를 모델이 다시 정합니다.")
    scope: bool = Field(False, description="true면 범위 안인지 애매한 질문을 모델이 판단합니다.")
    suggest: bool = Field(False, description="true면 추천할 FAQ를 후보 가운데에서 모델이 고릅니다.")
    timeout_seconds: float = Field(
        5.0, gt=0, le=300, description="이 단계 하나의 제한 시간(초). 넘으면 그 단계 없이 답합니다."
    )


class RedisSettings(Group):
    """Where conversations, cached answers and limits live when several processes share them."""

    url: SecretStr = Field(
        SecretStr(""), description="Redis 주소 (redis://호스트:6379/0). 비우면 데이터 폴더의 SQLite 파일을 씁니다."
    )
    prefix: str = Field("smartstore", pattern=r"^[a-z][a-z0-9_-]{0,63}$", description="Redis 키의 앞부분.")
    timeout_seconds: float = Field(1.0, gt=0, le=30, description="Redis 호출 하나의 제한 시간(초).")


class RabbitMQSettings(Group):
    """Where requests to index and to answer wait when several processes share them."""

    url: SecretStr = Field(
        SecretStr(""),
        description="RabbitMQ 주소 (amqp://사용자:비밀번호@호스트:5672/). 비우면 한 프로세스 안의 큐를 씁니다.",
    )
    prefix: str = Field("smartstore", pattern=r"^[a-z][a-z0-9_-]{0,63}$", description="교환기와 큐 이름의 앞부분.")
    timeout_seconds: float = Field(
        3.0, gt=0, le=30, description="RabbitMQ 호출 하나의 제한 시간(초). 보내기는 세 번까지 해 봅니다."
    )
    heartbeat_seconds: int = Field(
        10,
        ge=2,
        le=300,
        description="끊긴 연결을 알아차리는 시간(초). 그 두 배가 지나면 다른 워커가 일을 이어받습니다.",
    )
    max_answers: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="답변 큐에서 기다릴 수 있는 질문 수. 넘으면 503. 바꾸려면 큐를 비우고 지운 뒤 다시 시작합니다.",
    )


class IndexSettings(Group):
    """What may be indexed on request, and what a new index must find before it is put to use."""

    folders: str = Field(
        "", description="요청으로 색인할 수 있는 폴더, 쉼표로 구분. 비우면 SMARTSTORE_FAQ가 있는 폴더입니다."
    )
    max_source_mb: int = Field(200, ge=1, le=10_000, description="https 주소에서 받는 FAQ 파일의 최대 크기(MB).")
    golden: str = Field("", description="새 색인을 쓰기 전에 확인할 질문 파일(.jsonl, eval의 검색 질문). 비우면 생략.")
    golden_hit: float = Field(
        0.8,
        ge=0,
        le=1,
        description="golden의 질문 가운데 정답이 10위 안에 들어야 하는 비율. 모자라면 옛 색인을 씁니다.",
    )


class ServerSettings(Group):
    """The API server, `smartstore serve`."""

    host: str = Field("127.0.0.1", min_length=1, description="서버가 듣는 주소. 모두에게 열려면 0.0.0.0.")
    port: int = Field(8000, ge=0, le=65_535, description="서버가 듣는 포트.")
    api_keys: SecretStr = Field(
        SecretStr(""), description="API 키, 쉼표로 구분. 비우면 키가 필요한 경로는 이 컴퓨터에서만 쓸 수 있습니다."
    )
    require_key: bool = Field(False, description="true면 질문과 검색에도 API 키가 필요합니다.")
    cors_origins: str = Field("", description="브라우저에서 부를 수 있는 웹 주소, 쉼표로 구분. 비우면 같은 주소만.")
    trusted_proxies: str = Field(
        "127.0.0.1", description="X-Forwarded-For를 믿을 프록시의 주소, 쉼표로 구분. 모두 믿으려면 *."
    )
    drain_seconds: float = Field(20.0, ge=0, le=600, description="끝낼 때 답변 중인 스트림을 기다리는 시간(초).")

    @property
    def keys(self) -> frozenset[str]:
        """Return the API keys."""
        return _listed(self.api_keys.get_secret_value())

    @property
    def origins(self) -> frozenset[str]:
        """Return the origins of pages that may call."""
        return _listed(self.cors_origins)


class WorkerSettings(Group):
    """The workers, `smartstore worker`: where they tell how they are."""

    host: str = Field("127.0.0.1", min_length=1, description="워커가 상태와 지표를 알리는 주소.")
    port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="워커가 /healthz, /readyz, /metrics를 여는 포트. 0이면 열지 않습니다.",
    )


class ChatSettings(Group):
    """The chat page: who signs in, and where its chats are kept."""

    secret: SecretStr = Field(
        SecretStr(""),
        description="로그인 쿠키에 서명하는 비밀 값(32자 이상). 비우면 데이터 폴더에 만들어 둡니다. "
        "프로세스가 여럿이면 같은 값을 정해 주세요.",
    )
    users: str = Field(
        "",
        description="로그인할 사람들의 파일(`smartstore user`가 만든 줄). 비우면 로그인 없이 브라우저마다 따로 씁니다.",
    )
    history_url: SecretStr = Field(
        SecretStr(""),
        description="지난 대화를 두는 곳 (postgresql://사용자:비밀번호@호스트/이름). 비우면 데이터 폴더의 SQLite.",
    )
    history_days: float = Field(90.0, gt=0, le=3_650, description="마지막으로 쓴 뒤 지난 대화를 보관하는 날 수.")
    cross_site: bool = Field(
        False, description="true면 다른 도메인의 페이지에 넣은 위젯에서도 쿠키를 씁니다. HTTPS에서만 됩니다."
    )


class LimitSettings(Group):
    """How much one client, and all together, may ask for."""

    per_minute: int = Field(60, ge=0, le=100_000, description="세션 또는 주소 하나의 1분당 요청 수. 0이면 제한 없음.")
    max_runs: int = Field(200, ge=1, le=10_000, description="한꺼번에 답하는 질문 수.")
    queue: int = Field(100, ge=0, le=10_000, description="그보다 많을 때 기다릴 수 있는 질문 수. 넘으면 503.")
    queue_seconds: float = Field(10.0, gt=0, le=300, description="자리가 나기를 기다리는 시간(초). 넘으면 503.")


class StreamSettings(Group):
    """How a run's events are sent and kept."""

    heartbeat_seconds: float = Field(15.0, gt=0, le=300, description="조용한 스트림에 보내는 SSE 주석의 간격(초).")
    grace_seconds: float = Field(
        3.0,
        ge=0.1,
        le=300,
        description="읽는 사람이 떠난 뒤 답변을 멈추기까지의 시간(초). 그 안에 다시 이을 수 있습니다.",
    )
    keep_seconds: float = Field(600.0, ge=0, le=86_400, description="끝난 답변의 이벤트를 보관하는 시간(초).")
    keep_runs: int = Field(2_000, ge=0, le=1_000_000, description="이벤트를 보관하는 끝난 답변의 수.")


class MemorySettings(Group):
    """How much of a conversation is kept."""

    max_turns: int = Field(20, ge=1, le=200, description="대화 하나에 보관하는 문답 수.")
    max_tokens: int = Field(
        3_000, ge=100, le=100_000, description="질문할 때 읽는 앞 대화의 최대 토큰 수(어림). 최근 문답은 늘 남습니다."
    )
    days: float = Field(3.0, gt=0, le=365, description="마지막으로 쓴 뒤 대화를 보관하는 날 수.")
    feedback_days: float = Field(
        365.0, gt=0, le=3_650, description="의견(좋아요, 싫어요)을 그 문답과 함께 보관하는 날 수."
    )


class CacheSettings(Group):
    """Answers that are given again to a question that asks the same."""

    enabled: bool = Field(True, description="false면 모든 질문에 새로 답합니다.")
    max_answers: int = Field(5_000, ge=1, le=1_000_000, description="보관하는 답변 수. 넘으면 오래된 것부터 버립니다.")
    days: float = Field(7.0, gt=0, le=365, description="답변과 질문의 벡터를 보관하는 날 수.")


class WatchSettings(Group):
    """What an operator watches: logs and traces."""

    log_level: str = Field(
        "info", pattern=r"(?i)^(debug|info|warning|error)$", description="로그 수준: debug, info, warning, error."
    )
    log_format: str = Field(
        "auto",
        pattern=r"^(auto|json|console)$",
        description="로그 형식: json, console(사람용). auto는 터미널이면 console, 아니면 json입니다.",
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="추적(trace)을 보낼 OTLP/HTTP 수집기 (http://호스트:4318). 비우면 보내지 않습니다.",
    )
    trace_text: bool = Field(False, description="true면 개인정보를 가린 질문과 답변의 글도 추적에 넣습니다.")


def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())
