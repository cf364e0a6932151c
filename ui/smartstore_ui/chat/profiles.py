"""What the page opens with: the models to choose from as chat profiles, a welcome, and questions to start with."""

import chainlit as cl

from smartstore_indexing.errors import FaqError
from smartstore_indexing.settings import EXTRACTIVE
from smartstore_workflows import Chatbot

LOGO = "/public/logo.svg"
WELCOME = """### 무엇을 도와드릴까요?
스마트스토어 고객센터의 **FAQ에 있는 내용**을 찾아 출처와 함께 답해 드립니다.
FAQ에 없는 내용은 없다고 말씀드리고, 내 주문·정산 금액 조회나 스마트스토어와 관계없는 질문에는 답하지 않습니다."""
NAMES = {EXTRACTIVE: "FAQ 그대로", "openai": "OpenAI", "vllm": "Qwen3-32B (vLLM)"}
HOW = {
    EXTRACTIVE: "FAQ의 글을 그대로 옮겨 답합니다.",
    "openai": "OpenAI 모델이 찾은 FAQ만을 근거로 답을 씁니다.",
    "vllm": "Qwen3-32B가 찾은 FAQ만을 근거로 답을 씁니다.",
}
OTHER = "이 모델이 찾은 FAQ만을 근거로 답을 씁니다."
STARTERS = {
    "판매자 가입": "스마트스토어 판매자로 가입하려면 어떻게 하나요?",
    "상품 등록": "상품은 어떻게 등록하나요?",
    "배송비 설정": "배송비는 어떻게 설정하나요?",
    "반품·교환": "고객이 반품을 요청하면 어떻게 처리하나요?",
    "정산": "정산은 언제 되나요?",
    "수수료": "판매 수수료는 얼마인가요?",
}


class Opening:
    """What a new chat shows."""

    def __init__(self, bot: Chatbot) -> None:
        """Offer the bot's models, and the starters that its FAQ answers."""
        self._bot = bot
        self._judged: object = None  # the index that the starters were chosen over
        self._starters: list[cl.Starter] = []

    async def profiles(self, user: cl.User | None) -> list[cl.ChatProfile]:
        """Return a profile for each model that can answer, the default first."""
        del user
        default, *_ = models = self._bot.models
        return [
            cl.ChatProfile(
                name=name,
                display_name=NAMES.get(name, name),
                markdown_description=f"{WELCOME}\n\n{HOW.get(name, OTHER)}",
                icon=LOGO,
                default=name == default,
            )
            for name in models
        ]

    async def starters(self, user: cl.User | None) -> list[cl.Starter]:
        """Return the questions to start with; those that the FAQ in use does not answer are left out."""
        del user
        try:
            index = await self._bot.services.retriever.searchable()
            if index is not self._judged:
                self._starters = [
                    cl.Starter(label=label, message=question)
                    for label, question in STARTERS.items()
                    if (await self._bot.outcome(question)).written.kind == "answered"
                ]
                self._judged = index
        except FaqError:
            return []  # nothing is indexed yet, or Milvus is away: the page opens all the same
        return self._starters
