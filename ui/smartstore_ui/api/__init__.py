"""The HTTP and WebSocket API: a Starlette application over one open Chatbot."""
