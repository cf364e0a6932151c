"""Who may ask for what: API keys, and without any configured this machine alone where a key would be needed."""

import ipaddress
import secrets

from starlette.requests import HTTPConnection

from smartstore_indexing.errors import Forbidden, Unauthorized

SCHEME = "bearer "


class Access:
    """The configured API keys."""

    def __init__(self, keys: frozenset[str], *, required: bool, origins: frozenset[str]) -> None:
        """Take the keys and the origins of pages that may call; with `required` every route asks for a key."""
        self._keys = [key.encode() for key in keys]
        self._required = required
        self._origins = origins

    def open_to(self, connection: HTTPConnection) -> None:
        """Let a client ask questions.

        Raises:
            Unauthorized: every route asks for a key, and the client sent none or a wrong one.
        """
        if self._required and not self._has_key(connection):
            raise Unauthorized("API 키가 필요합니다. Authorization: Bearer 헤더로 보내 주세요.")

    def owner_only(self, connection: HTTPConnection) -> None:
        """Let a client do what only the operator may.

        Raises:
            Unauthorized: keys are configured, and the client sent none or a wrong one.
            Forbidden: none is configured, and the client is on another machine, or a page of another origin asks.
        """
        self.same_origin(connection)
        if self._keys:
            if not self._has_key(connection):
                raise Unauthorized("API 키가 필요합니다. Authorization: Bearer 헤더로 보내 주세요.")
        elif not (is_loopback(address(connection)) and is_loopback(connection.url.hostname or "")):
            # The Host header too: a page on the web may point its own name at this machine.
            raise Forbidden("API 키가 설정되지 않아 서버가 있는 컴퓨터에서만 쓸 수 있습니다.")

    def same_origin(self, connection: HTTPConnection) -> None:
        """Turn away the page of another origin, which a browser would let ask in its user's name.

        Raises:
            Forbidden: the Origin header names neither this server nor a configured origin.
        """
        origin = connection.headers.get("origin")
        own = {f"{scheme}://{connection.headers.get('host', '')}" for scheme in ("http", "https")}
        if origin is not None and origin not in own | self._origins and "*" not in self._origins:
            raise Forbidden(
                "이 웹 주소에서는 쓸 수 없습니다. 필요하면 SMARTSTORE_SERVER__CORS_ORIGINS에 추가해 주세요."
            )

    def _has_key(self, connection: HTTPConnection) -> bool:
        sent = connection.headers.get("authorization", "")
        if not sent.lower().startswith(SCHEME):
            return False
        key = sent[len(SCHEME) :].strip().encode()
        # All of them, so that the time taken tells nothing.
        return True in [secrets.compare_digest(key, known) for known in self._keys]


def address(connection: HTTPConnection) -> str:
    """Return the client's address, behind a trusted proxy that which the proxy names."""
    return connection.client.host if connection.client else ""


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
