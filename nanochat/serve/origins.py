"""
By which names this server may be asked, and whose web pages may ask it.

A server on localhost is safe from other machines but not from the pages that its user visits: any page may
have a visitor's browser send requests there. Browsers say in which site a script stands (Origin), and under
which name they ask (Host). Both are compared here with what is known; whoever runs the server behind a proxy
or for another site's page tells it their names.
"""
import contextlib
import ipaddress
import re
from typing import NamedTuple

from nanochat.common import UsageError
from nanochat.serve.errors import ApiError

HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>\d{0,5}))?")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class Address(NamedTuple):
    """Where a browser asks, or a page stands; `port` is "" where it is the scheme's own."""

    name: str  # lower case, without the brackets of IPv6 or a dot at the end
    port: str

    @property
    def is_ip(self) -> bool:
        try:
            return bool(ipaddress.ip_address(self.name))
        except ValueError:
            return False


def read_address(host: str) -> Address | None:
    """What a Host header says; None if that is no address."""
    found = HOST.fullmatch(host.lower())
    if found is None:
        return None
    name = (found["ipv6"] or found["name"]).rstrip(".")
    with contextlib.suppress(ValueError):
        name = str(ipaddress.ip_address(name))  # [0:0::1] is [::1], too
    return Address(name, found["port"] or "")


def read_origin(origin: str) -> tuple[str, Address] | None:
    """(scheme, address) of "https://front.example:8443"; None if it is no such thing, as "null" is none."""
    scheme, _, host = origin.lower().partition("://")
    address = read_address(host)
    if address is None or not SCHEME.fullmatch(scheme):
        return None
    if address.port == DEFAULT_PORTS.get(scheme):
        address = address._replace(port="")
    return scheme, address


# ---- flags
def parse_hosts(flag: str, given: str) -> tuple[str, ...]:
    """The names in a list with commas; the address of a page will do, too. Raises UsageError."""
    names = []
    for part in _listed(given):
        address = read_address(part.rpartition("://")[2].partition("/")[0])
        if address is None:
            raise UsageError(f"--{flag} wants names such as chat.example.com, got {part!r}.")
        names.append(address.name)
    return tuple(names)


def parse_origins(flag: str, given: str) -> tuple[str, ...]:
    """The origins in a list with commas, as browsers write them, or "*". Raises UsageError."""
    origins = []
    for part in _listed(given):
        scheme, mark, rest = part.partition("://")
        origin = read_origin(scheme + mark + rest.partition("/")[0])
        if origin is not None:
            origins.append(_written(*origin))
        elif part == "*":
            origins.append(part)
        else:
            raise UsageError(f"--{flag} wants origins such as https://front.example, got {part!r}.")
    return tuple(origins)


def _listed(given):
    return [part.strip() for part in given.split(",") if part.strip()]


def _written(scheme, address):
    name = f"[{address.name}]" if ":" in address.name else address.name
    port = f":{address.port}" if address.port else ""
    return f"{scheme}://{name}{port}"


# ---- requests
class KnownNames:
    """`hosts` are the names this server may be asked by (empty: any), `public` those that a proxy or a tunnel
    in front of it has, `origins` the sites of others whose pages may use it."""

    def __init__(self, hosts: tuple[str, ...], public: tuple[str, ...], origins: tuple[str, ...]):
        self.hosts = hosts
        self.public = public
        self.origins = origins

    def check(self, host: str, origin: str | None) -> None:
        """The headers Host and, where a browser sent it, Origin. Raises ApiError 403, which says how to let
        them in."""
        asked = read_address(host)
        if self.hosts and not self._is_ours(asked):
            raise _foreign_host(asked)
        if origin is None or "*" in self.origins:
            return
        page = read_origin(origin)
        if page is None:
            raise _forbidden("wrong_origin", "A page without an address of its own, such as a file, may not "
                             "use this server. Open it from a web server, and name that with --allow_origin.")
        scheme, address = page
        same = asked is not None and read_origin(f"{scheme}://{host}") == page
        if not same and address.name not in self.public and _written(*page) not in self.origins:
            raise _foreign_origin(_written(*page), address)

    def _is_ours(self, asked):
        """Whether a Host is no other site's.

        DNS rebinding: a site lets its own name point to 127.0.0.1 after its page is loaded, so that the
        browser takes this server for that site's, and Origin proves nothing. But the name that it asks for is
        that site's still. A number is nobody's to point elsewhere.
        """
        return asked is not None and (asked.is_ip or asked.name in self.hosts + self.public)


def _forbidden(code, message):
    return ApiError(403, message, "permission_error", code=code)


def _foreign_host(asked):
    message = "This server is not known by that name."
    if asked is not None:
        message = (f"This server does not know that it is {asked.name}. If a proxy, a tunnel or a container "
                   f"calls it so, start it with --public_host={asked.name}.")
    return _forbidden("wrong_host", message)


def _foreign_origin(origin, address):
    return _forbidden("wrong_origin", f"Pages of {origin} may not use this server. If that is its own page "
                      f"behind a proxy or a tunnel, start it with --public_host={address.name}; if it is "
                      f"another site that you trust, with --allow_origin={origin}.")
