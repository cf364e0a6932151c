"""The models that questions choose from by name, and those that are asked where the chosen one fails."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Self

from smartstore_indexing.settings import COMPATIBLE, EXTRACTIVE, OPENAI, VLLM, Settings
from smartstore_workflows.model_calls import Writes


class Models:
    """The configured models; `close` closes them."""

    def __init__(self, by_name: Mapping[str, Writes], *, fallbacks: tuple[str, ...] = ()) -> None:
        """Take the open models by the names that questions use, and the names to ask where one fails, in order."""
        self._by_name = dict(by_name)
        self._fallbacks = fallbacks

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the clients of the models that are configured; nothing is sent yet.

        Their libraries are imported here: they take a second, which answers from the FAQ alone need not.
        """
        made: dict[str, Writes] = {}
        for name in settings.models:
            if name == OPENAI:
                from smartstore_workflows.openai_chat import openai_model

                key = settings.openai_api_key.get_secret_value()
                made[name] = openai_model(settings.openai, key=key, base_url=settings.openai_base_url)
            elif name == COMPATIBLE:
                from smartstore_workflows.openai_chat import COMPATIBLE_ADVICE, openai_model

                server = settings.compatible
                key = server.api_key.get_secret_value() or "none"  # the client refuses to have none
                made[name] = openai_model(server, key=key, base_url=server.url, advice=COMPATIBLE_ADVICE)
            else:
                from smartstore_workflows.vllm_chat import vllm_model

                made[name] = vllm_model(settings.vllm, model=settings.vllm.model if name == VLLM else name)
        return cls(made, fallbacks=settings.fallbacks)

    @property
    def names(self) -> list[str]:
        """Return the names that a question may choose, "extractive" first."""
        return [EXTRACTIVE, *self._by_name]

    def get(self, name: str) -> Writes | None:
        """Return the model of a name; None for "extractive"."""
        return self._by_name.get(name)

    def writer(self, name: str) -> str:
        """Return the name that the model of a name has on its server, "extractive" where the FAQ answers."""
        model = self._by_name.get(name)
        return EXTRACTIVE if model is None else model.name

    def in_turn(self, name: str) -> list[Writes]:
        """Return the model of a name and those that are asked where it fails; none where the FAQ answers."""
        if name not in self._by_name:
            return []
        chosen = dict.fromkeys([name, *self._fallbacks])
        return [self._by_name[other] for other in chosen if other in self._by_name]

    async def close(self) -> None:
        """Close all."""
        async with AsyncExitStack() as stack:
            for model in self._by_name.values():
                stack.push_async_callback(model.close)
