"""Proxies, for HTTP and for SOCKS: real ones, which say whom they led where."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from yarl import URL

from haversack import route
from haversack.datasets.source import dataset
from haversack.errors import ConnectionFailed, InputError
from haversack.http import Http, wait
from tests.archive.zips import zipped
from tests.blocks.storage import Storage, serving

# With uvloop, where that happens to be installed, it does not start.
PPROXY = """if True:
    import asyncio, sys
    sys.modules["uvloop"] = None
    asyncio.set_event_loop(asyncio.new_event_loop())
    from pproxy.server import main
    main()
"""


@dataclass
class Running:
    """A proxy for HTTP and SOCKS on one port, which wants a user and password."""

    port: int
    log: Path

    def address(self, scheme: str, login: str = "ada:secret") -> str:
        return f"{scheme}://{login}@127.0.0.1:{self.port}"

    @property
    def led(self) -> str:
        return self.log.read_text()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("proxy") / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listen = f"http+socks4+socks5://127.0.0.1:{port}#ada:secret"
    with open(log, "w") as out:
        command = [sys.executable, "-u", "-c", PPROXY, "-v", "--auth", "0", "-l", listen]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    while "Serving on" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    yield Running(port, log)
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def elsewhere() -> Iterator[Storage]:
    """Storage with an archive, by an address that is not taken for this machine's."""
    with serving(Storage(zipped({"a.txt": b"by the proxy"}))) as storage:
        storage.url = storage.url.replace("127.0.0.1", "0.0.0.0")
        yield storage


@pytest.mark.parametrize(
    ("variable", "scheme", "said"),
    [
        ("HTTP_PROXY", "http", "http"),
        ("ALL_PROXY", "http", "http"),
        ("ALL_PROXY", "socks5", "socks5"),
        ("all_proxy", "socks5h", "socks5"),
        ("http_proxy", "socks5", "socks5"),
        ("ALL_PROXY", "socks4", "socks4"),
    ],
)
def test_an_archive_is_read_through_it(
    proxy: Running, elsewhere: Storage, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str, said: str
) -> None:
    # SOCKS 4 knows a user, and no password.
    monkeypatch.setenv(variable, proxy.address(scheme, "ada%3Asecret" if scheme == "socks4" else "ada:secret"))
    before = proxy.led.count(f"{said} ")
    with dataset(f"{elsewhere.url}/a.zip") as data:
        assert data.read("a.txt") == b"by the proxy"
    assert proxy.led.count(f"{said} ") > before


def test_a_wrong_password_is_told_without_showing_it(
    proxy: Running, elsewhere: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.address("socks5", "ada:mistaken"))
    client = elsewhere.client(attempts=1)
    with pytest.raises(ConnectionFailed, match="does not answer") as raised:
        wait(client.request("GET", "/file"))
    wait(client.close())
    assert "mistaken" not in f"{raised.value} {raised.value.__cause__}"


def test_a_proxy_that_is_away_is_told_by_its_name(elsewhere: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    client = elsewhere.client(attempts=1)
    with pytest.raises(ConnectionFailed, match=r"by the proxy socks5://127\.0\.0\.1:9"):
        wait(client.request("GET", "/file"))
    wait(client.close())


def test_without_its_library_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "aiohttp_socks.py").write_text("raise ImportError")
    program = "import haversack; haversack.dataset('http://example.org/a.zip')"
    environment = {**os.environ, "ALL_PROXY": "socks5://127.0.0.1:9", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert 'pip install "haversack[socks]"' in done.stderr


@pytest.mark.parametrize("given", ["gopher://proxy.example", "http://", "socks5://"])
def test_what_is_no_proxy_is_told(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ALL_PROXY", given)
    with pytest.raises(InputError, match="ALL_PROXY is not the address of a proxy"):
        route.proxy_for("https://drive.example/x")


def test_what_signs_in_to_a_proxy_is_in_no_repr() -> None:
    assert "secret" not in repr(route.Proxy(URL("http://proxy.example"), ("ada", "secret")))


def test_hosts_of_no_proxy_are_reached_directly(elsewhere: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "0.0.0.0")
    client: Http = elsewhere.client(attempts=1)
    assert wait(client.request("GET", "/file")).status == 200
    wait(client.close())
