"""Everything that can go wrong and be said to a person.

FaqError
├── InvalidRequest 422        what was asked cannot be read: an empty or too long question, a broken FAQ file
│   └── UnsafeSource          a pickle that names a class or function
├── UnknownResource 404       an FAQ, run or conversation of that name does not exist
├── Conflict 409              it cannot be done as things stand
│   ├── IndexMissing          nothing has been indexed yet
│   ├── IndexOutdated         the index was made by another embedding model or an older format
│   ├── IndexRejected         a freshly built index failed its check and was not put to use
│   └── FolderInUse           another process holds the data folder
├── TransientError 503        trying again helps
│   ├── StoreUnavailable      Milvus or the local store does not answer, or cannot write
│   └── ModelUnavailable      the language model does not answer
└── PermanentError 500        trying again does not help
    └── Misconfigured         the settings cannot be used

Messages are Korean, say what to do next, and hold no secret and no text of the vendor's exception.
"""

from typing import ClassVar


class FaqError(Exception):
    """Base of every error that this program raises on purpose; `message` is meant for a person."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        """Hold the message."""
        super().__init__(message)
        self.message = message


class InvalidRequest(FaqError):
    """Raised when what was asked for cannot be read."""

    status = 422
    code = "invalid_request"


class UnsafeSource(InvalidRequest):
    """Raised when an FAQ file would run code if it were read."""

    code = "unsafe_source"


class UnknownResource(FaqError):
    """Raised when a thing that was named does not exist."""

    status = 404
    code = "not_found"


class Conflict(FaqError):
    """Raised when a request cannot be met as things stand."""

    status = 409
    code = "conflict"


class IndexMissing(Conflict):
    """Raised when nothing has been indexed yet."""

    code = "index_missing"


class IndexOutdated(Conflict):
    """Raised when the index was made by another embedding model or an older format."""

    code = "index_outdated"


class IndexRejected(Conflict):
    """Raised when a freshly built index failed its check; the one before it stays in use."""

    code = "index_rejected"


class FolderInUse(Conflict):
    """Raised when another process holds the data folder."""

    code = "folder_in_use"
    exit_code = 3


class TransientError(FaqError):
    """Raised when trying again may help."""

    status = 503
    code = "unavailable"


class StoreUnavailable(TransientError):
    """Raised when Milvus or the local store does not answer or cannot write."""

    code = "store_unavailable"


class ModelUnavailable(TransientError):
    """Raised when the language model does not answer."""

    code = "model_unavailable"


class PermanentError(FaqError):
    """Raised when trying again does not help."""

    code = "failed"


class Misconfigured(PermanentError):
    """Raised when the settings cannot be used."""

    code = "misconfigured"
