"""Login: an agent of WebArena begins signed in. The forms of its sites, and the accounts that come with its images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from anyorder_jax.environments.web.tab import LostError
from anyorder_jax.environments.webarena.browser import SiteTab


class Form(NamedTuple):
    """path: of the page with the form. user, password, button: CSS selectors. account: user's name and password, as
    WebArena publishes them (https://github.com/web-arena-x/webarena, browser_env/env_config.py)."""

    path: str
    user: str
    password: str
    button: str
    account: tuple[str, str]


FORMS = {
    "gitlab": Form(
        "/users/sign_in", "[name='user[login]']", "[name='user[password]']",
        "[data-testid=sign-in-button], form[action*=sign_in] [type=submit]", ("byteblaze", "hello1234"),
    ),
    "reddit": Form(
        "/login", "[name=_username]", "[name=_password]", "form[action*=login] :is([type=submit], button)",
        ("MarvelsGrantMan136", "test1234"),
    ),
    "shopping": Form(
        "/customer/account/login/", "[name='login[username]']", "[name='login[password]']", "#send2",
        ("emma.lopez@gmail.com", "Password.123"),
    ),
    "shopping_admin": Form(
        "", "[name='login[username]']", "[name='login[password]']", ".action-login", ("admin", "admin1234"),
    ),
}  # fmt: skip
"""Site -> where one signs in. The others need nobody's name."""


def sign_in(
    tab: SiteTab, sites: Sequence[str], addresses: Mapping[str, str], accounts: Mapping[str, tuple[str, str]]
) -> None:
    """Signs in where there is a form; where there is none nobody is asked.

    Args:
      tab: that plays.
      sites: of a task.
      addresses: site -> URL.
      accounts: site -> user's name and password, where they are not WebArena's own.

    Raises:
      LostError: a site cannot be opened, or still shows the form afterwards.
    """
    for site in sites:
        if site not in FORMS:
            continue
        form = FORMS[site]
        user, password = accounts.get(site, form.account)
        fields = {form.user: user, form.password: password}
        tab.open(addresses[site] + form.path)
        if tab.fill_and_send(fields, form.button) and tab.run(f"!!document.querySelector({json.dumps(form.password)})"):
            raise LostError(f"{site} does not take the account {user}")
