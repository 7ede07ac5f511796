"""Moving: sliders, spinners, and things that are dragged."""

from __future__ import annotations

import re

from anyorder_jax.environments.miniwob.experts.page import MissingError, Page, ordinal


def _slid(page: Page, number: int, wanted: int) -> str:
    """Sees to it that a slider shows a number: handles are what is clickable, each before its number. A click
    moves and focuses one, keys do the rest."""
    sliders = [node for node in page.all("generic") if node.has("clickable")]
    numbers = [text for text in page.texts() if re.fullmatch(r"-?\d+", text)]
    if number >= len(sliders) or len(sliders) != len(numbers):
        raise MissingError("there is no such slider")
    slider, shown = sliders[number], int(numbers[number])
    way = wanted - shown
    if not way:
        return ""
    if not page.nodes[page.nodes.index(slider) + 1].has("focused"):
        return page.click(slider)
    keys = ("PageDown", "ArrowLeft", "ArrowRight", "PageUp")  # a page is a fifth of the slider, 20 at most
    return f"keyboard_press({keys[(way > 0) + (way > 20) + (way >= -20)]!r})"


def _slider(page: Page) -> str:
    wanted = int(page.goal_parts(r"Select (-?\d+) with")[0])
    return _slid(page, 0, wanted) or page.click("button", "Submit")


def _sliders(page: Page) -> str:
    wanted = list(map(int, page.goal_parts(r"\[(.*)\]")[0].split(",")))
    for number, value in enumerate(wanted):
        if action := _slid(page, number, value):
            return action
    return page.click("button", "Submit")


def _spinner(page: Page) -> str:
    wanted, field = int(page.goal_parts(r"Select (-?\d+) with")[0]), page.one("spinbutton")
    way = wanted - int(field.value or 0)
    return page.pressed(field, "ArrowUp" if way > 0 else "ArrowDown") if way else page.click("button", "Submit")


def _sequence(page: Page) -> str:
    value, box = page.goal_parts(r"Select (-?\d+) with the slider, click the (\d+)\w\w checkbox")
    checkbox = page.one("checkbox", None, ordinal(box))
    return _slid(page, 0, int(value)) or page.checked(checkbox) or page.click("button", "Submit")


def _sequence_2(page: Page) -> str:
    radio, number, field = page.goal_parts(r"the (\d+)\w\w radio .* \"(-?\d+)\" into the (\d+)\w\w")
    done = page.checked(page.one("radio", None, ordinal(radio)))
    return done or page.typed(page.one("textbox", None, ordinal(field)), number) or page.click("button", "Submit")


def _sequence_3(page: Page) -> str:
    size, button = page.goal_parts(r"Choose (.*) from the dropdown, then click the button labeled \"(.*)\"")
    if page.shows("listitem"):
        return page.click(page.around(size))
    if page.one("combobox").value != size:
        return page.click(page.around("▾"))
    return page.click("button", button)


def _items(page: Page) -> list[str]:
    return [page.nodes[page.nodes.index(item) + 1].name for item in page.all("listitem")]


def _drag_item(page: Page) -> str:
    name, how = page.goal_parts(r"Drag (\S+) (.*)\.")
    items, place = page.all("listitem"), _items(page).index(name)
    if found := re.search(r"to the (\d+)\w\w position", how):
        target = int(found[1]) - 1
    else:
        ways = {
            "up by one position": place - 1,
            "down by one position": place + 1,
            "to the top": 0,
            "to the bottom": -1,
        }
        target = ways[how]
    return page.dragged(items[place], items[target])


def _sort(page: Page) -> str:
    numbers = [int(name) for name in _items(page)]
    items = page.all("listitem")
    for place, number in enumerate(sorted(numbers)):
        if numbers[place] != number:
            return page.dragged(items[numbers.index(number)], items[place])
    return page.click("button", "Submit")


def _box(page: Page) -> str:
    drag = page.dragged(page.around("s"), page.around("L"))
    return page.click("button", "Submit") if drag in page.done else drag


EXPERTS = {
    "use-slider": _slider,
    "use-slider-2": _sliders,
    "use-spinner": _spinner,
    "form-sequence": _sequence,
    "form-sequence-2": _sequence_2,
    "form-sequence-3": _sequence_3,
    "drag-items": _drag_item,
    "drag-sort-numbers": _sort,
    "drag-box": _box,
}
"""Kind -> expert."""
