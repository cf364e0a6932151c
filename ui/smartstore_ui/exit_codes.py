"""What the program's exit codes mean; 1 is an error, and 3 is FolderInUse's."""

USAGE_ERROR = 2
SIGNIFICANT_LOSS = 4  # `eval --baseline`: a main metric is surely worse than it was
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
