"""Places: tasks whose elements have no names, and are known by their order."""

from __future__ import annotations

import re

from anyorder_jax.environments.miniwob.experts.page import MissingError, Page


def _grid(page: Page) -> str:
    x, y = map(int, page.goal_parts(r"\((-?\d),(-?\d)\)"))
    points = page.all("graphics-symbol")
    if len(points) != 25:
        raise MissingError("there are points missing")
    return page.click(points[5 * (x + 2) + (2 - y)])


def _ascending(page: Page) -> str:
    """The numbers are hidden after the first click; what hides them stands in their order."""
    return page.click(page.around("1")) if "1" in page.texts() else page.click("graphics-symbol|generic")


def _scroll(page: Page) -> str:
    end = "Control+Home" if "top" in page.goal else "Control+End"
    action = page.pressed(page.one("textbox"), end)
    return page.click("button", "Submit") if page.done and page.done[-1] == action else action


def _posts(page: Page) -> str:
    kinds = {"Reply": 0, "Retweet": 1, "Like": 2, "Share": 3}
    what, user = page.goal_parts(r"Click the \"(\w+)\" button on .* by (@\w+)")
    count = re.search(r"on (\d+) posts?", page.goal)
    places = [place for place, node in enumerate(page.nodes) if node.name == user and node.role == "StaticText"]
    for place in places[: int(count[1]) if count else len(places)]:
        action = page.click(page.after(place, "image", kinds[what]))
        if action not in page.done:
            return action
    return page.click("button", "Submit")


EXPERTS = {
    "ascending-numbers": _ascending,
    "grid-coordinate": _grid,
    "scroll-text-2": _scroll,
    "social-media-all": _posts,
    "social-media-some": _posts,
}
"""Kind -> expert."""
