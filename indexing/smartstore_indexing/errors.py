"""Everything that can go wrong and be said to a person.

FaqError
├── InvalidRequest 422        what was asked cannot be read: an empty or too long question, a broken FAQ file
│   ├── UnsafeSource          a pickle that names a class or function
│   └── TooLarge 413          the request's body is larger than it may be
├── Unauthorized 401          the API key is missing or wrong
├── Forbidden 403             without an API key it is for this machine alone
├── UnknownResource 404       an FAQ, run or conversation of that name does not exist
│   └── UnknownModel          no model of that name is configured
├── Conflict 409              it cannot be done as things stand
│   ├── IndexMissing          nothing has been indexed yet
│   ├── IndexOutdated         the index was made by another embedding model or an older format
│   ├── IndexRejected         a freshly built index failed its check and was not put to use
│   └── FolderInUse           another process holds the data folder
├── TransientError 503        trying again helps
│   ├── TooManyRequests 429   more requests in a minute than one session or address may make
│   ├── Overloaded 503        more questions at once than can be answered
│   ├── StoreUnavailable      Milvus or the local store does not answer, or cannot write
│   └── ModelUnavailable      the language model, or the embedding model, does not answer
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


class TooLarge(InvalidRequest):
    """Raised when a request's body is larger than it may be."""

    status = 413
    code = "too_large"


class Unauthorized(FaqError):
    """Raised when an API key is missing or wrong."""

    status = 401
    code = "unauthorized"


class Forbidden(FaqError):
    """Raised when something that needs an API key is asked for from another machine and no key is configured."""

    status = 403
    code = "forbidden"


class UnknownResource(FaqError):
    """Raised when a thing that was named does not exist."""

    status = 404
    code = "not_found"


class UnknownModel(UnknownResource):
    """Raised when a model is asked for that is not configured."""

    code = "model_not_found"


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

    def __init__(self, message: str, *, url: str = "") -> None:
        """Hold the message, and the address of the server that holds the folder, "" when it is none."""
        super().__init__(message)
        self.url = url


class TransientError(FaqError):
    """Raised when trying again may help."""

    status = 503
    code = "unavailable"


class Busy(TransientError):
    """Base of what passes by itself; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        """Hold the message and when to try again."""
        super().__init__(message)
        self.retry_after = retry_after


class TooManyRequests(Busy):
    """Raised when a session or an address makes more requests in a minute than it may."""

    status = 429
    code = "too_many_requests"


class Overloaded(Busy):
    """Raised when more questions are asked at once than can be answered."""

    code = "overloaded"


class StoreUnavailable(TransientError):
    """Raised when Milvus or the local store does not answer or cannot write."""

    code = "store_unavailable"


class ModelUnavailable(TransientError):
    """Raised when the language model, or the embedding model, does not answer."""

    code = "model_unavailable"


class PermanentError(FaqError):
    """Raised when trying again does not help."""

    code = "failed"


class Misconfigured(PermanentError):
    """Raised when the settings cannot be used."""

    code = "misconfigured"
