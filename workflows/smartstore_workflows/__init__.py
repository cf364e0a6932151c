"""Answering: the workflow, its events, scope, memory, models and prompts.

`from smartstore_workflows import Chatbot` is the library's door.
"""

from smartstore_workflows.chatbot import Chatbot

__all__ = ["Chatbot"]
