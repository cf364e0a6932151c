"""The chat page, on Chainlit; only these modules may import it."""
