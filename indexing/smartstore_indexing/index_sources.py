"""Which FAQ files others may name, and how they are brought here: from allowed folders, or over https.

An address is judged where it counts, as the socket connects: whatever a name resolves to, then or after a redirect,
this machine and its network are out of reach.
"""

import asyncio
import ipaddress
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath

import aiohttp
from aiohttp.connector import AddrInfoType
from yarl import URL

from smartstore_indexing.errors import InvalidRequest, StoreUnavailable
from smartstore_indexing.loading import MAX_BYTES

SUFFIXES = frozenset({".pkl", ".csv", ".jsonl"})
MAX_REDIRECTS = 3
FETCH_SECONDS = 120.0
CONNECT_SECONDS = 10.0
CHUNK_BYTES = 256 * 1024
FOUND, MOVED, TOO_MANY_REQUESTS, SERVER_ERRORS = 200, frozenset({301, 302, 303, 307, 308}), 429, 500
NAT64 = ipaddress.ip_network("64:ff9b::/96")
OUTSIDE = "허용된 폴더의 파일이 아닙니다. 허용된 폴더에 있는 파일의 경로를 지정해 주세요."
KINDS = "주소는 .pkl, .csv, .jsonl 가운데 하나로 끝나야 합니다."
UNSAFE = (
    "인터넷의 https:// 주소만 색인할 수 있습니다. 이 컴퓨터나 내부망의 주소, 그리로 옮겨 가는 주소는 받지 않습니다."
)
UNTRUSTED = "색인할 파일의 서버가 제시한 인증서를 믿을 수 없습니다. 주소와 인증서를 확인해 주세요."
UNREACHABLE = "색인할 파일의 서버가 응답하지 않습니다. 주소와 서버를 확인해 주세요."
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the internet's, and not of this machine, its network or a group of machines."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


@asynccontextmanager
async def fetched(
    source: str,
    *,
    allowed_folders: Sequence[Path],
    reachable: Callable[[Address], bool] = is_public,
    tls: ssl.SSLContext | None = None,
    max_bytes: int = MAX_BYTES,
    seconds: float = FETCH_SECONDS,
) -> AsyncIterator[Path]:
    """Yield the file that a source names, a path or an https address; what was downloaded goes after the block.

    `reachable` and `tls` are for a network of one's own: which addresses may be connected to, and whom to trust.

    Raises:
        InvalidRequest: the path is outside the folders, the address is not allowed or has no such file, the file is
            too large, or it is of no kind that can be read.
        StoreUnavailable: the server did not answer in time.
    """
    if "://" not in source:
        yield await asyncio.to_thread(_allowed, source, allowed_folders)
        return
    url = _safe(source)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="smartstore-"))
    try:
        path = folder / f"faq{_suffix(url)}"
        await _download(url, path, door=_Door(reachable), tls=tls, max_bytes=max_bytes, seconds=seconds)
        yield path
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class _Door:
    """Makes the sockets of one download, to addresses within reach alone."""

    def __init__(self, reachable: Callable[[Address], bool]) -> None:
        self._reachable = reachable
        self.refused = False

    def __call__(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, there = info
        if not self._reachable(ipaddress.ip_address(str(there[0]))):
            self.refused = True
            raise PermissionError
        return socket.socket(family, kind, protocol)


def _allowed(source: str, folders: Sequence[Path]) -> Path:
    """Return the path without links; InvalidRequest when it is in none of the folders."""
    try:
        path = Path(source).resolve()
        inside = any(path.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL in the name
        inside = False
    if not inside:
        raise InvalidRequest(OUTSIDE)
    return path


def _safe(address: str) -> URL:
    """Return an address that may be asked; InvalidRequest when it is not https, or holds a password."""
    try:
        url = URL(address)
        safe = url.scheme == "https" and url.host and url.user is None and url.password is None
    except ValueError:
        safe = False
    if not safe:
        raise InvalidRequest(UNSAFE)
    return url


def _suffix(url: URL) -> str:
    """Return the ending that tells a file's kind; InvalidRequest when it is none of ours."""
    suffix = PurePosixPath(url.path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidRequest(KINDS)
    return suffix


async def _download(
    url: URL, path: Path, *, door: _Door, tls: ssl.SSLContext | None, max_bytes: int, seconds: float
) -> None:
    try:
        async with asyncio.timeout(seconds), _session(door, tls) as session, _response(session, url) as response:
            await _save(response, path, max_bytes)
    except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError) as error:
        raise InvalidRequest(UNTRUSTED) from error
    except (aiohttp.InvalidURL, aiohttp.ClientPayloadError) as error:
        raise InvalidRequest(UNSAFE) from error
    except (aiohttp.ClientError, OSError) as error:
        if door.refused:
            raise InvalidRequest(UNSAFE) from error
        raise StoreUnavailable(UNREACHABLE) from error


def _session(door: _Door, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        ssl=tls or True, resolver=aiohttp.ThreadedResolver(), socket_factory=door, force_close=True
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a small answer must not become a large file
        headers={"Accept-Encoding": "identity"},
        trust_env=False,
    )


@asynccontextmanager
async def _response(session: aiohttp.ClientSession, url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
    """Yield the answer that has the file, redirects followed, each to an address that may be asked."""
    for _ in range(MAX_REDIRECTS + 1):
        async with session.get(url, allow_redirects=False) as response:
            if response.status in MOVED:
                url = _safe(str(url.join(URL(response.headers.get("Location", "")))))
                continue
            _refuse_other_than_found(response)
            yield response
            return
    raise InvalidRequest("색인할 파일의 주소가 너무 여러 번 옮겨 갑니다.")


def _refuse_other_than_found(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status == TOO_MANY_REQUESTS or status >= SERVER_ERRORS:
        raise StoreUnavailable(UNREACHABLE)
    if status != FOUND or response.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidRequest(f"색인할 파일을 받지 못했습니다 (서버의 응답 {status}). 주소를 확인해 주세요.")


async def _save(response: aiohttp.ClientResponse, path: Path, max_bytes: int) -> None:
    received = 0
    with await asyncio.to_thread(path.open, "wb") as file:
        async for piece in response.content.iter_chunked(CHUNK_BYTES):
            received += len(piece)
            if received > max_bytes:
                raise InvalidRequest(f"색인할 파일이 너무 큽니다 (최대 {max_bytes // 1024**2}MB).")
            await asyncio.to_thread(file.write, piece)
