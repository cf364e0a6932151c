"""The settings of RabbitMQ."""

from pydantic import Field, SecretStr

from smartstore_indexing.setting_groups import Group


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
