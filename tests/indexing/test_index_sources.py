"""Which files and addresses may be indexed; the servers are on this machine, reached where a test allows it."""

import asyncio
import datetime
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smartstore_indexing.errors import InvalidRequest, StoreUnavailable
from smartstore_indexing.index_sources import Address, fetched, is_public

FAQ = b'{"question": "a", "answer": "b"}\n'
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@dataclass
class Site:
    """An https server, and what it answers at each path."""

    certificate: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        return await self.answers[request.path](request)  # type: ignore[arg-type]  # a low-level server's

    def moves(self, path: str, location: str) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": location})

        self.answers[path] = answer

    def has(self, path: str, body: bytes = FAQ, status: int = 200, encoding: str = "identity") -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers={"Content-Encoding": encoding})

        self.answers[path] = answer


@pytest.fixture
async def site(certificate: Path) -> AsyncIterator[Site]:
    site = Site(certificate)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    runner = web.ServerRunner(web.Server(site), shutdown_timeout=0.1)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await listening.start()
    site.url = f"https://localhost:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()


def anywhere(_: Address) -> bool:
    return True


async def content(
    source: str, *, folders: list[Path] | None = None, site: Site | None = None, **bounds: float
) -> bytes:
    """Return what a source has; with a site, its certificate is trusted and this machine may be reached."""
    own = {"reachable": anywhere, "tls": site.trust} if site else {}
    async with fetched(source, allowed_folders=folders or [], **own, **bounds) as path:  # type: ignore[arg-type]
        return await asyncio.to_thread(path.read_bytes)


async def refusal(source: str, *, folders: list[Path] | None = None, site: Site | None = None, **bounds: float) -> str:
    with pytest.raises(InvalidRequest) as refused:
        await content(source, folders=folders, site=site, **bounds)
    return refused.value.message


async def test_file_of_an_allowed_folder_is_taken_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "faq.jsonl"
    file.write_bytes(FAQ)
    async with fetched(str(file), allowed_folders=[Path("/nowhere"), tmp_path]) as path:
        assert path == file
    assert file.exists()


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "../faq.csv",
        "allowed/../faq.csv",
        "faq.csv",
        "file:/etc/passwd",
        "\x00",
        "a" * 5_000,
        "~/faq.csv",
    ],
    ids=lambda source: repr(source)[:20],
)
async def test_path_outside_the_allowed_folders_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "faq.csv").touch()
    assert "허용된 폴더" in await refusal(os.path.join(tmp_path, source), folders=[tmp_path / "allowed"])  # noqa: PTH118
    assert "허용된 폴더" in await refusal(source, folders=[tmp_path / "allowed"])


async def test_link_that_leaves_the_allowed_folder_is_refused(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "faq.csv").touch()
    (allowed / "link.csv").symlink_to(tmp_path / "faq.csv")
    (allowed / "loop.csv").symlink_to(allowed / "loop.csv")
    (tmp_path / "allowed-too").mkdir()
    for name in ("allowed/link.csv", "allowed/loop.csv", "allowed-too/faq.csv"):
        assert "허용된 폴더" in await refusal(str(tmp_path / name), folders=[allowed])


async def test_no_path_is_allowed_where_no_folder_is(tmp_path: Path) -> None:
    assert "허용된 폴더" in await refusal(str(tmp_path / "faq.csv"))


async def test_file_of_an_https_address_is_brought_and_goes_afterwards(site: Site) -> None:
    site.has("/faq.jsonl")
    source = f"{site.url}/faq.jsonl?v=1"
    async with fetched(source, allowed_folders=[], reachable=anywhere, tls=site.trust) as path:
        assert path.suffix == ".jsonl"
        assert path.read_bytes() == FAQ
    assert not path.parent.exists()


async def test_redirect_to_another_https_address_is_followed(site: Site) -> None:
    site.has("/new/faq")
    site.moves("/faq.csv", "/new/faq")
    assert await content(f"{site.url}/faq.csv", site=site) == FAQ


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost/faq.csv",
        "file:///etc/passwd",
        "ftp://example.com/faq.csv",
        "https://user:password@example.com/faq.csv",
        "data:text/csv,a",
        "",
    ],
    ids=repr,
)
async def test_redirect_to_what_is_not_https_is_refused(site: Site, location: str) -> None:
    site.moves("/faq.csv", location)
    assert await refusal(f"{site.url}/faq.csv", site=site)
    assert len(site.asked) <= 4


async def test_redirects_without_an_end_are_refused(site: Site) -> None:
    site.moves("/faq.csv", "/faq.csv")
    assert "여러 번" in await refusal(f"{site.url}/faq.csv", site=site)
    assert len(site.asked) == 4


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"])
async def test_address_of_this_machine_is_refused_and_never_asked(site: Site, host: str) -> None:
    site.has("/faq.csv")
    port = site.url.rpartition(":")[2]
    assert "https://" in await refusal(f"https://{host}:{port}/faq.csv")
    assert site.asked == []


async def test_redirect_to_this_machine_is_refused(site: Site) -> None:
    # Of the two names of this machine the first stands for the internet.
    site.moves("/faq.csv", site.url.replace("localhost", "127.0.0.2") + "/inner.csv")
    site.has("/inner.csv")

    def outside(address: Address) -> bool:
        return str(address) == "127.0.0.1"

    with pytest.raises(InvalidRequest, match="https://"):
        async with fetched(f"{site.url}/faq.csv", allowed_folders=[], reachable=outside, tls=site.trust):
            pass
    assert site.asked == ["/faq.csv"]


@pytest.mark.parametrize(
    "source",
    [
        "http://example.com/faq.csv",
        "file:///faq.csv",
        "https:///faq.csv",
        "https://u:p@example.com/faq.csv",
        "x://[/faq.csv",
    ],
)
async def test_address_that_is_not_plain_https_is_refused(source: str) -> None:
    assert "https://" in await refusal(source)


async def test_address_of_another_kind_of_file_is_refused() -> None:
    assert ".jsonl" in await refusal("https://example.com/faq.exe")


async def test_certificate_that_nobody_vouches_for_is_refused(site: Site) -> None:
    site.has("/faq.csv")
    with pytest.raises(InvalidRequest, match="인증서"):
        async with fetched(f"{site.url}/faq.csv", allowed_folders=[], reachable=anywhere):
            pass
    assert site.asked == []


@pytest.mark.parametrize("status", [204, 304, 401, 404])
async def test_answer_without_the_file_is_refused_with_its_status(site: Site, status: int) -> None:
    site.has("/faq.csv", b"", status)
    assert str(status) in await refusal(f"{site.url}/faq.csv", site=site)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_answer_of_a_server_in_trouble_may_be_another_later(site: Site, status: int) -> None:
    site.has("/faq.csv", b"", status)
    with pytest.raises(StoreUnavailable):
        await content(f"{site.url}/faq.csv", site=site)


async def test_file_that_is_too_large_is_refused(site: Site) -> None:
    site.has("/faq.csv", b"x" * 1_001)
    assert "너무 큽니다" in await refusal(f"{site.url}/faq.csv", site=site, max_bytes=1_000)
    assert await content(f"{site.url}/faq.csv", site=site, max_bytes=1_001)


async def test_file_without_an_end_is_refused(site: Site) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)

    site.answers["/faq.csv"] = endless
    assert "너무 큽니다" in await refusal(f"{site.url}/faq.csv", site=site, max_bytes=1_000_000)


async def test_compressed_answer_is_refused(site: Site) -> None:
    site.has("/faq.csv", b"\x1f\x8b", encoding="gzip")
    assert await refusal(f"{site.url}/faq.csv", site=site)


async def test_server_that_does_not_answer_is_given_up_in_time(site: Site) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    site.answers["/faq.csv"] = silent
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await content(f"{site.url}/faq.csv", site=site, seconds=0.3)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "198.18.0.1", "::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:db8::1", "fec0::1"),
    ],
)
def test_address_of_no_public_machine_is_out_of_reach(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "203.0.114.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_address_of_the_internet_is_within_reach(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
