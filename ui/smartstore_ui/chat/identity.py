"""Who uses the page: people of a password file or of an OAuth provider, or without either guests, one a browser."""

import asyncio
import secrets
from pathlib import Path

import bcrypt
import chainlit as cl
from chainlit.auth.cookie import get_token_from_cookies, set_auth_cookie
from chainlit.auth.jwt import create_jwt, decode_jwt
from chainlit.oauth_providers import get_configured_oauth_providers
from jwt import InvalidTokenError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from smartstore_indexing.settings import Settings
from smartstore_ui.passwords import MAX_BYTES, read_users

GUEST, GUEST_NAME = "guest", "손님"
NOBODY = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt())  # an unknown name takes as long as a wrong password


class Identity:
    """How people sign in here."""

    def __init__(self, settings: Settings) -> None:
        """Read the password file; Misconfigured when it cannot be used."""
        self._hashes = read_users(Path(settings.chat.users)) if settings.chat.users else {}
        self._oauth = bool(get_configured_oauth_providers())

    @property
    def guests(self) -> bool:
        """Tell whether people use the page without signing in."""
        return not self._hashes and not self._oauth

    def register(self) -> None:
        """Tell Chainlit how people sign in."""
        if self._hashes:
            cl.password_auth_callback(self._signed_in)
        if self._oauth:
            cl.oauth_callback(_known_elsewhere)
        if self.guests:
            cl.header_auth_callback(_guest)

    def welcome(self, request: Request, response: Response) -> bool:
        """Make a browser a guest of its own where guests may come and it is nobody yet; return whether it is one."""
        user = _user_of(request)
        if user is None and self.guests:
            user = new_guest()
            set_auth_cookie(request, response, create_jwt(user))
        return user is not None and GUEST in user.metadata

    async def _signed_in(self, username: str, password: str) -> cl.User | None:
        known = self._hashes.get(username)
        given = password.encode()[:MAX_BYTES]
        fits = await asyncio.to_thread(bcrypt.checkpw, given, known or NOBODY)
        return cl.User(identifier=username) if known and fits else None


def new_guest() -> cl.User:
    """Return a user whom nobody can guess."""
    return cl.User(identifier=f"{GUEST}-{secrets.token_hex(16)}", display_name=GUEST_NAME, metadata={GUEST: True})


async def _guest(headers: Headers) -> cl.User | None:
    return new_guest()


async def _known_elsewhere(
    provider_id: str, token: str, raw_user_data: dict[str, str], default_app_user: cl.User, id_token: str | None = None
) -> cl.User | None:
    """Take the provider's user; two providers' users of one name are two."""
    del token, raw_user_data, id_token
    return cl.User(
        identifier=f"{provider_id}:{default_app_user.identifier}",
        display_name=default_app_user.identifier,
        metadata={"provider": provider_id},
    )


def _user_of(request: Request) -> cl.User | None:
    token = get_token_from_cookies(request.cookies)
    if not token:
        return None
    try:
        return decode_jwt(token)
    except InvalidTokenError:
        return None
