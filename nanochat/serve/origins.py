"""
By which names this server may be asked, and whose web pages may ask it.

A server on localhost is safe from other machines but not from the pages that its user visits: any page may
have a visitor's browser send requests there. Browsers say in which site a script stands (Origin), and under
which name they ask (Host). Who runs the server behind a proxy, or for another site's page, tells it their
names.
"""
import ipaddress
import re
from typing import NamedTuple

from nanochat.common import UsageError
from nanochat.serve.errors import ApiError

HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>\d{0,5}))?")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class Address(NamedTuple):
    """Where a browser asks, or a page stands."""

    name: str  # lower case, without the brackets of IPv6 or a dot at the end
    port: str  # "" is the scheme's own
    is_ip: bool


def read_address(host: str) -> Address | None:
    """What a Host header says; None if that is no address."""
    found = HOST.fullmatch(host.lower())
    if found is None:
        return None
    name = (found["ipv6"] or found["name"]).rstrip(".")
    port = found["port"] or ""
    try:
        return Address(str(ipaddress.ip_address(name)), port, True)  # [0:0::1] is [::1], too
    except ValueError:
        return Address(name, port, False)


def read_origin(origin: str) -> tuple[str, str] | None:
    """(the origin as browsers write it, its name) of "https://Front.example:443"; None if it is no such
    thing, as "null" is none."""
    scheme, _, host = origin.lower().partition("://")
    address = read_address(host)
    if address is None or not SCHEME.fullmatch(scheme):
        return None
    name = f"[{address.name}]" if ":" in address.name else address.name
    if address.port not in ("", DEFAULT_PORTS.get(scheme)):
        name += f":{address.port}"
    return f"{scheme}://{name}", address.name


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
    """The origins in a list with commas, or "*", which is any. Raises UsageError."""
    origins = []
    for part in _listed(given):
        found = ("*", "") if part == "*" else read_origin(part.rstrip("/"))
        if found is None:
            raise UsageError(f"--{flag} wants origins such as https://front.example, got {part!r}.")
        origins.append(found[0])
    return tuple(origins)


def _listed(given):
    return [part.strip() for part in given.split(",") if part.strip()]


# ---- requests
class KnownNames:
    """`hosts` are the names this server may be asked by (empty: any), `public` those that a proxy or a tunnel
    in front of it has, `origins` the sites of others whose pages may use it."""

    def __init__(self, hosts: tuple[str, ...], public: tuple[str, ...], origins: tuple[str, ...]):
        self.hosts = hosts
        self.public = public
        self.origins = origins

    def check(self, host: str | None, origin: str | None) -> None:
        """The headers Host and, where a browser sent it, Origin. Raises ApiError 403, which says how to let
        them in."""
        if self.hosts and host is not None:  # None: a proxy's probe, no browser
            self._check_host(read_address(host))
        if origin is None or "*" in self.origins:
            return
        page = read_origin(origin)
        if page is None:
            raise _forbidden("wrong_origin", "A page without an address of its own, such as a file, may not "
                             "use this server. Open it from a web server, and name that with --allow_origin.")
        site, name = page
        ours = read_origin(f"{site.partition('://')[0]}://{host or ''}")
        if page != ours and name not in self.public and site not in self.origins:
            raise _forbidden("wrong_origin", f"Pages of {site} may not use this server. If that is its own "
                             f"page behind a proxy or a tunnel, start it with --public_host={name}; if it is "
                             f"another site that you trust, with --allow_origin={site}.")

    def _check_host(self, asked):
        """Against DNS rebinding: a site lets its own name point to 127.0.0.1 after its page is loaded, so
        that the browser takes this server for that site's, and Origin proves nothing.

        But the name that it asks for is still that site's. A number is nobody's to point elsewhere.
        """
        if asked is None:
            raise _forbidden("wrong_host", "This server is not known by that name.")
        if not asked.is_ip and asked.name not in self.hosts + self.public:
            raise _forbidden("wrong_host", f"This server does not know that it is {asked.name}. If a proxy, "
                             f"tunnel or container calls it so, start it with --public_host={asked.name}.")


def _forbidden(code, message):
    return ApiError(403, message, "permission_error", code=code)
