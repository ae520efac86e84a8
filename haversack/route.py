"""The way to a server: through which proxy, and whose certificates are believed.

Proxies are the system's own (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`), for HTTP or SOCKS; this machine is
always reached directly. A SOCKS proxy (RFC 1928) looks names up itself, also those that only it knows; one of version 4
cannot. Beside the authorities that the system knows, the certificate file of the setting `ca` is believed, as for a hub
with `--tls`.
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
    """A proxy; `address` is without the user and password that sign in to it (`login`)."""

    address: URL
    login: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return str(self.address)

    @property
    def is_socks(self) -> bool:
        return self.address.scheme in _SOCKS

    @property
    def headers(self) -> dict[str, str]:
        """What signs in to one for HTTP."""
        if self.login is None:
            return {}
        return {"Proxy-Authorization": f"Basic {base64.b64encode(':'.join(self.login).encode()).decode()}"}

    def connector(self, **options: Any) -> Any:
        """aiohttp's connector through one for SOCKS. Raises `ExtraMissing` where its library is not installed."""
        try:
            from aiohttp_socks import ProxyConnector, ProxyType
        except ImportError as error:
            raise ExtraMissing(
                f"The proxy {self} is one for SOCKS.", 'Install what it needs: pip install "haversack[socks]"'
            ) from error
        user, password = self.login or (None, None)
        return ProxyConnector(
            host=str(self.address.host),
            port=self.address.explicit_port or _SOCKS_PORT,
            proxy_type=ProxyType[_SOCKS[self.address.scheme]],
            username=user,
            password=password,
            rdns=self.address.scheme != "socks4",  # which has no names
            **options,
        )


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what a secret that was given to one of them must not leave."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def proxy_for(url: str) -> Proxy | None:
    """The proxy to take for `url`; None to go directly. Raises `InputError` for a proxy that is no address."""
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
            f"{variable.upper()}_PROXY names no proxy.",
            "Give it like http://proxy.example:3128 or socks5://proxy.example:1080.",
        )
    login = None if address.user is None else (address.user, address.password or "")
    return Proxy(address.with_user(None), login)


def socks_failures() -> tuple[type[Exception], ...]:
    """What connections through a SOCKS proxy fail with; also where it hangs up in the middle of a greeting."""
    library = sys.modules.get("aiohttp_socks")
    if library is None:
        return ()
    return library.ProxyError, library.ProxyConnectionError, library.ProxyTimeoutError, EOFError


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=4)
def trust(ca: str) -> ssl.SSLContext:
    """The system's authorities and those in the PEM file `ca`. Raises `InputError` for a file that is none."""
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca)
    except OSError as error:
        raise InputError(f"{ca} holds no certificates ({error}).", "HAVERSACK_CA names a PEM file.") from error
    return context
