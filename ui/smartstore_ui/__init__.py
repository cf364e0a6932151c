"""The doors: the command line, later the API and the chat page."""
