"""Finding: tasks in which something has to be opened until what is asked for is seen."""

from __future__ import annotations

import re

from anyorder_jax.environments.miniwob.experts.page import MissingError, Page, ordinal


def _link(page: Page) -> str:
    return page.click(page.around(page.quoted[0]))


def _tab(page: Page) -> str:
    return page.click("link", page.goal_parts(r"(Tab #\d+)")[0])


def _tabs(page: Page) -> str:
    if page.quoted[0] in page.texts():
        return _link(page)
    tabs = page.all("tab")
    shown = next((number for number, tab in enumerate(tabs) if tab.has("selected=True")), -1)
    return page.click(page.all("link")[(shown + 1) % len(tabs)])


def _section(page: Page) -> str:
    tab = page.one("tab")
    return page.click(tab) if tab.has("expanded=False") else page.click("button", "Submit")


def _sections(page: Page) -> str:
    if page.quoted[0] in page.texts():
        return _link(page)
    tabs = page.all("tab")
    shown = next((number for number, tab in enumerate(tabs) if tab.has("expanded=True")), -1)
    return page.click(tabs[(shown + 1) % len(tabs)])


def _pie(page: Page) -> str:
    """The middle says "-" while the menu is open."""
    return page.click(page.around(page.quoted[0] if "-" in page.texts() else "+"))


def _menu(page: Page) -> str:
    path = [part.strip() for part in page.goal_parts(r"Select (.*)")[0].split(">")]
    for name in path[:-1]:
        if not page.one("menuitem", name).has("expanded=True") and not _below(page, name, path):
            return f"hover({page.one('menuitem', name).bid!r})"
    return page.click("menuitem", path[-1])


def _below(page: Page, name: str, path: list[str]) -> bool:
    return page.shows("menuitem", path[path.index(name) + 1])


def _tree(page: Page) -> str:
    name = page.quoted[0]
    if name in page.texts():
        return page.click(page.around(name))
    for node in page.nodes:
        if node.role == "StaticText" and page.around(node.name).role == "generic":
            action = page.click(page.around(node.name))
            if action not in page.done:
                return action
    raise MissingError(f"there is no {name}")


def _phone(page: Page) -> str:
    name, what = page.goal_parts(r"Find (\w+) in the contact book and click on their (.*)\.")
    if page.one("heading").name != name:
        return page.click("link", ">")
    labels = {"phone number": "Phone:", "email": "Email:", "address": "Address:"}
    return page.click(page.after(page.place(labels[what]), "link"))


_RESULTS = 3
"""On a page."""


def _search(page: Page) -> str:
    name, number = page.quoted[0], ordinal(page.goal_parts(r"the (\d+)\w\w search")[0])
    field = page.one("textbox")
    if action := page.typed(field, name):
        return action
    if not page.shows("link", "1"):
        return page.click("button", "Search")
    wanted = page.click("link", str(number // _RESULTS + 1))
    if number >= _RESULTS and page.done[-1] != wanted:
        return wanted
    results = [node for node in page.all("link") if not re.fullmatch(r"[<>]|\d+", node.name)]
    return page.click(results[number % _RESULTS])


EXPERTS = {
    "click-link": _link,
    "click-tab": _tab,
    "click-tab-2": _tabs,
    "click-tab-2-easy": _tabs,
    "click-tab-2-medium": _tabs,
    "click-tab-2-hard": _tabs,
    "click-collapsible": _section,
    "click-collapsible-nodelay": _section,
    "click-collapsible-2": _sections,
    "click-collapsible-2-nodelay": _sections,
    "click-pie": _pie,
    "click-menu": _menu,
    "navigate-tree": _tree,
    "phone-book": _phone,
    "search-engine": _search,
}
"""Kind -> expert."""
