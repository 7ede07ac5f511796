"""Addresses: where the sites of WebArena are served, as the variable ANYORDER_JAX_WEBARENA_SITES says:

    ANYORDER_JAX_WEBARENA_SITES="gitlab=http://127.0.0.1:8023 shopping_admin=http://10.0.0.7:7780/admin"

Who is signed in, where that is not WebArena's own account, may stand in it (http://USER:PASSWORD@HOST). A text of a
task names a site by its mark (`__GITLAB__/explore`); an address stands in its place while it is played.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

VARIABLE = "ANYORDER_JAX_WEBARENA_SITES"
SITES = ("gitlab", "map", "reddit", "shopping", "shopping_admin", "wikipedia", "homepage")
NOWHERE = "http://{}.invalid"
"""Stands for a site without an address, which a scorer must be told too: a name that no site can have."""

Addresses = Mapping[str, str]
"""Site -> its URL, without a slash at its end."""


def named() -> dict[str, str]:
    """Those that the variable names.

    Raises:
      ValueError: for an entry that is no SITE=URL; says which.
    """
    return {site: _whole(parts) for site, parts in _entries().items()}


def accounts() -> dict[str, tuple[str, str]]:
    """Site -> user's name and password, where the variable names them. Errors as `named`."""
    found = ((site, parts.username, parts.password) for site, parts in _entries().items())
    return {site: (unquote(user), unquote(password)) for site, user, password in found if user and password}


def _whole(parts: SplitResult) -> str:
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _entries() -> dict[str, SplitResult]:
    found: dict[str, SplitResult] = {}
    for number, entry in enumerate(os.environ.get(VARIABLE, "").split(), 1):
        site, _, url = entry.partition("=")
        if site not in SITES or site in found:
            near = difflib.get_close_matches(site, SITES, n=1)
            why = "stands twice" if site in found else "is none" + (f"; did you mean {near[0]}?" if near else "")
            raise ValueError(f"{VARIABLE}: site {site!r} {why}. Expected SITE=URL; the sites are {', '.join(SITES)}.")
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url:  # not shown: a password may stand in it
            raise ValueError(f"{VARIABLE}: expected {site}=http://HOST[:PORT][/PATH] as entry {number}.")
        found[site] = parts
    return found


def mark(site: str) -> str:
    """As tasks write it, `__GITLAB__`."""
    return f"__{site.upper()}__"


def placed(text: str, addresses: Addresses) -> str:
    """A text with addresses in the place of marks; a mark without one stays."""
    for site, url in addresses.items():
        text = text.replace(mark(site), url)
    return text


def hosts(addresses: Addresses) -> tuple[str, ...]:
    """The names of their machines, each once."""
    return tuple(dict.fromkeys(str(urlsplit(url).hostname) for url in addresses.values()))


def marked(text: str, addresses: Addresses) -> str:
    """The inverse of `placed`: what an agent is shown where addresses are drawn anew for each session."""
    for site, url in sorted(addresses.items(), key=lambda entry: -len(entry[1])):
        text = re.sub(re.escape(url) + r"(?![\w.-])", mark(site), text)
    return text
