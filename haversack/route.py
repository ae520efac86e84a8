"""The way to a server: through which proxy, and whose certificates are believed.

Proxies are the system's own (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`); this machine is always reached directly. Beside
the authorities that the system knows, the certificate file of the setting `ca` is believed, as for a hub with `--tls`.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
import urllib.request
from functools import lru_cache
from urllib.parse import urlsplit

from yarl import URL

from haversack.errors import InputError

_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what a secret that was given to one of them must not leave."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def proxy_for(url: str) -> tuple[URL | None, dict[str, str] | None]:
    """The proxy to take for `url` and the headers that sign in to it; (None, None) to go directly.

    Raises `InputError` for a proxy that is no address.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    found = None if is_loopback(host) else urllib.request.getproxies().get(parts.scheme)
    if not found or urllib.request.proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None, None
    try:
        address = URL(found if "://" in found else f"http://{found}")
    except ValueError:
        address = URL()
    if address.scheme not in _PORTS or not address.host:
        raise InputError(f"{parts.scheme.upper()}_PROXY names no proxy.", "Give it like http://proxy.example:3128.")
    if address.user is None:
        return address, None
    login = base64.b64encode(f"{address.user}:{address.password or ''}".encode()).decode()
    return address.with_user(None), {"Proxy-Authorization": f"Basic {login}"}


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
