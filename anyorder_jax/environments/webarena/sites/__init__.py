"""Stand-in sites: small servers of ours with the addresses and form fields that WebArena-Verified's tasks name.

    with started() as sites:
        sites.addresses      {"gitlab": "http://127.0.0.1:41113", "shopping_admin": "http://127.0.0.1:39001/admin", ...}
        sites.reset()        every store is as it was at first

They are no copies of WebArena's sites: what stands on them is invented, but for the numbers, names and places that
tasks take for granted (`*_facts`). Results on them are "WebArena-Verified tasks on stand-in sites", never WebArena's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from anyorder_jax.environments.webarena.sites import (
    admin,
    admin_goods,
    encyclopedia,
    forge_code,
    forum,
    shop_account,
)
from anyorder_jax.environments.webarena.sites.serving import Site

MAKERS: Mapping[str, Callable[[], Site]] = {
    "gitlab": forge_code.site,
    "reddit": forum.site,
    "shopping": shop_account.site,
    "shopping_admin": admin_goods.site,
}
"""Name in the benchmark -> what makes the site."""
_ROOTS = {"shopping_admin": admin.ROOT}


def names() -> tuple[str, ...]:
    """The sites that can be served here."""
    return (*MAKERS, *(() if encyclopedia.missing() else ("wikipedia",)))


@dataclass(frozen=True)
class Sites:
    """addresses: site -> its URL. made: those with a store. missing: site -> why it is not there."""

    addresses: Mapping[str, str]
    made: Mapping[str, Site]
    missing: Mapping[str, str]

    def reset(self) -> None:
        """Puts all stores back."""
        for site in self.made.values():
            site.reset()


@contextlib.contextmanager
def started() -> Iterator[Sites]:
    """The sites, while they are served; they end with this process at the latest.

    Raises:
      RuntimeError: a program that is installed does not do its work.
    """
    with contextlib.ExitStack() as stack:
        made = {name: make() for name, make in MAKERS.items()}
        addresses = {name: stack.enter_context(site.started()) + _ROOTS.get(name, "") for name, site in made.items()}
        why = encyclopedia.missing()
        if not why:
            addresses["wikipedia"] = stack.enter_context(encyclopedia.started())
        yield Sites(addresses, made, {"wikipedia": why} if why else {})
