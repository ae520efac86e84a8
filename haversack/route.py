"""The route to a server: which proxy is used, and which certificate authorities are trusted.

Proxies are the system's (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`), HTTP or SOCKS; loopback addresses are
always reached directly. A SOCKS proxy (RFC 1928) resolves host names itself, except version 4, which cannot. The
certificate file in the setting `ca` is trusted in addition to the system's authorities, as needed for a hub with
`--tls`.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
import sys
import urllib.request
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from yarl import URL

from haversack.errors import ExtraMissing, InputError

_PORTS = {"http": 80, "https": 443}
_SOCKS = {"socks": "SOCKS5", "socks5": "SOCKS5", "socks5h": "SOCKS5", "socks4": "SOCKS4", "socks4a": "SOCKS4"}
_SOCKS_PORT = 1080


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        address: its URL, of the scheme http, https, socks4, socks4a, socks5, socks5h or socks (5), without user and
            password.
        login: (user, password); None if it needs none.
    """

    address: URL
    login: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return str(self.address)

    @property
    def is_socks(self) -> bool:
        return self.address.scheme in _SOCKS

    @property
    def headers(self) -> dict[str, str]:
        """The headers that sign in to an HTTP proxy; {} without a login."""
        if self.login is None:
            return {}
        return {"Proxy-Authorization": f"Basic {base64.b64encode(':'.join(self.login).encode()).decode()}"}

    def connector(self, **options: Any) -> Any:
        """aiohttp's connector through this SOCKS proxy; `options` are those of `aiohttp.TCPConnector`.

        Raises `ExtraMissing` if aiohttp-socks is not installed.
        """
        try:
            from aiohttp_socks import ProxyConnector, ProxyType
        except ImportError as error:
            raise ExtraMissing(
                f"The proxy {self} needs support for SOCKS.", 'Install it: pip install "haversack[socks]"'
            ) from error
        user, password = self.login or (None, None)
        return ProxyConnector(
            host=str(self.address.host),
            port=self.address.explicit_port or _SOCKS_PORT,
            proxy_type=ProxyType[_SOCKS[self.address.scheme]],
            username=user,
            password=password,
            rdns=self.address.scheme != "socks4",  # version 4 cannot resolve names
            **options,
        )


def origin(url: str) -> tuple[str, str | None, int | None]:
    """(scheme, host, port) of `url`, with the scheme's default port if it names none; host and port may be None."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def proxy_for(url: str) -> Proxy | None:
    """The proxy for `url` by the system's settings; None for a direct connection.

    Raises `InputError` if the environment variable for it, such as `HTTPS_PROXY`, is not the address of a proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    proxies = urllib.request.getproxies()
    variable = parts.scheme if parts.scheme in proxies else "all"
    found = proxies.get(variable)
    if not found or urllib.request.proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    try:
        address = URL(found if "://" in found else f"http://{found}")
    except ValueError:
        address = URL()
    if address.scheme not in _PORTS.keys() | _SOCKS.keys() or not address.host:
        raise InputError(
            f"{variable.upper()}_PROXY is not the address of a proxy.",
            "Give it like http://proxy.example:3128 or socks5://proxy.example:1080.",
        )
    login = None if address.user is None else (address.user, address.password or "")
    return Proxy(address.with_user(None), login)


def socks_failures() -> tuple[type[Exception], ...]:
    """The exception classes that a connection through a SOCKS proxy may raise; () as long as none was made.

    `EOFError` is one of them: the proxy hung up during the handshake.
    """
    library = sys.modules.get("aiohttp_socks")
    if library is None:
        return ()
    return library.ProxyError, library.ProxyConnectionError, library.ProxyTimeoutError, EOFError


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=4)
def trust(ca: str) -> ssl.SSLContext:
    """A TLS context that trusts the system's authorities and those in the PEM file at the path `ca`.

    Raises `InputError` if the file cannot be read or holds no certificates.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca)
    except OSError as error:
        raise InputError(f"{ca} holds no certificates ({error}).", "HAVERSACK_CA names a PEM file.") from error
    return context
