"""Buttons: tasks that are done by clicks alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from anyorder_jax.environments.miniwob.experts.page import MissingError, Page, listed, ordinal


def _named(page: Page) -> str:
    return page.click("button", page.quoted[0])


def _test(page: Page) -> str:
    return page.click("button", "Click Me!")


def _one(page: Page) -> str:
    return page.click("button", "ONE")


def _dialog(page: Page) -> str:
    return page.click("button", "Close" if page.quoted[0] == "x" else page.quoted[0])


def _sequence(page: Page) -> str:
    return page.click("button", "TWO" if page.one("button", "ONE").has("focused") else "ONE")


def _delay(page: Page) -> str:
    if not page.one("button", "ONE").has("focused"):
        return page.click("button", "ONE")
    seconds = int(page.goal_parts(r"wait (\d+) seconds")[0])
    if seconds > 1 and page.done[-1].startswith("click"):
        return f"noop({1000 * (seconds - 1)})"
    return page.click("button", "TWO")


def _boxes(page: Page) -> str:
    wanted = listed(page.goal_parts(r"Select (.*) and click Submit")[0])
    for box in page.all("checkbox"):
        if action := page.checked(box, box.name in wanted):
            return action
    return page.click("button", "Submit")


def _option(page: Page) -> str:
    name = page.goal_parts(r"Select (.*) and click Submit")[0]
    return page.checked(page.one("radio", name)) or page.click("button", "Submit")


def _list(page: Page) -> str:
    name = page.goal_parts(r"Select (.*) from the list")[0]
    return page.chosen(page.one("combobox"), [name]) or page.click("button", "Submit")


def _scroll_list(page: Page) -> str:
    names = listed(page.goal_parts(r"Select (.*) from the scroll list")[0])
    return page.chosen(page.one("listbox"), names) or page.click("button", "Submit")


def _greatest(page: Page) -> str:
    numbers = [text for text in page.texts() if re.fullmatch(r"-?\d+", text)]
    card = page.around(max(numbers, key=int))
    return page.click("button", "Submit") if page.done and page.done[-1] == page.click(card) else page.click(card)


def _ticket(page: Page) -> str:
    def minutes(text: str) -> int:
        hours, rest = re.fullmatch(r"(\d+)h (\d+)m", text).groups()  # type: ignore[union-attr]
        return 60 * int(hours) + int(rest)

    offers = [node for node in page.all("button") if "$" in node.name]
    choose = max if "longest" in page.goal or "most expensive" in page.goal else min
    if "cost" in page.goal:
        return page.click(choose(offers, key=lambda node: int(re.sub(r"\D", "", node.name))))
    times = [text for text in page.texts() if re.fullmatch(r"\d+h \d+m", text)]
    if not offers or len(times) != len(offers):
        raise MissingError("not every offer says how long it takes")
    return page.click(choose(zip(times, offers, strict=True), key=lambda pair: minutes(pair[0]))[1])


def _stock(page: Page) -> str:
    limit = float(page.goal_parts(r"less than \$([\d.]+\d)")[0])
    price = next((float(text[1:]) for text in page.texts() if re.fullmatch(r"\$[\d.]+", text)), None)
    if price is None:
        raise MissingError("there is no price")
    return page.click("button", "Buy") if price < limit else "noop()"


def _odd_or_even(page: Page) -> str:
    for place, node in enumerate(page.nodes):
        if node.role == "StaticText" and re.fullmatch(r"-?\d+", node.name):
            odd, even = page.nodes[place - 1], page.nodes[place + 1]
            button = odd if int(node.name) % 2 else even
            if page.click(button) not in page.done:
                return page.click(button)
    return page.click("button", "Submit")


def _generate(page: Page) -> str:
    word, limit = page.goal_parts(r"(less|greater|odd|even)\D*(\d*)")
    shown = next((text for text in page.texts() if re.fullmatch(r"-?\d+", text)), None)
    rules: Mapping[str, Callable[[int], bool]] = {
        "less": lambda n: n < int(limit),
        "greater": lambda n: n > int(limit),
        "odd": lambda n: n % 2 == 1,
        "even": lambda n: n % 2 == 0,
    }
    is_right = shown is not None and rules[word](int(shown))
    return page.click("button", "Submit" if is_right else "Generate")


def _order(page: Page) -> str:
    """A dish is its name, pictures of what is in it, "-", how many were ordered (where any), "+"."""
    adds = [place for place, node in enumerate(page.nodes) if node.role == "StaticText" and node.name == "+"]
    dishes = {}
    for start, end in zip([0, *adds], adds, strict=False):
        inside = [n for n in page.nodes[start + 1 : end] if n.role in ("StaticText", "image") and n.name != "-"]
        texts = [n.name for n in inside if n.role == "StaticText"]
        if texts:
            number = int(texts[1]) if len(texts) > 1 else 0
            dishes[texts[0]] = (number, [n.name for n in inside if n.role == "image"], page.nodes[end - 1])
    if "one of each" in page.goal:
        for name in listed(page.goal_parts(r"Order one of each item: (.*)")[0]):
            if name not in dishes:
                raise MissingError(f"there is no {name}")
            if not dishes[name][0]:
                return page.click(dishes[name][2])
        return page.click("button", "Order!")
    count, kind = page.goal_parts(r"Order (\d+) items that are (\S+)")
    right = [(number, add) for number, kinds, add in dishes.values() if kind in kinds]
    if not right:
        raise MissingError(f"nothing is {kind}")
    return page.click(right[0][1]) if sum(n for n, _ in right) < int(count) else page.click("button", "Order!")


def _sign(page: Page) -> str:
    if not page.quoted:
        return page.click("button", "Cancel")
    name, button = page.quoted
    field = page.one("textbox", "Name")
    if field.has("disabled=True"):
        hover = f"hover({page.one('textbox').bid!r})"
        return "scroll(0, 5000)" if page.done and page.done[-1] == hover else hover
    return page.typed(field, name) or page.click("button", button)


def _focus(page: Page) -> str:
    number = ordinal(page.goal_parts(r"the (\d+)\w\w ")[0]) if re.search(r"\d", page.goal) else 0
    return page.click("textbox", None, number)


EXPERTS = {
    "click-button": _named,
    "unicode-test": _named,
    "click-test": _test,
    "click-test-2": _one,
    "click-test-transfer": _one,
    "click-dialog": _dialog,
    "click-dialog-2": _dialog,
    "click-button-sequence": _sequence,
    "button-delay": _delay,
    "click-checkboxes": _boxes,
    "click-checkboxes-large": _boxes,
    "click-checkboxes-transfer": _boxes,
    "click-option": _option,
    "choose-list": _list,
    "click-scroll-list": _scroll_list,
    "find-greatest": _greatest,
    "buy-ticket": _ticket,
    "stock-market": _stock,
    "odd-or-even": _odd_or_even,
    "generate-number": _generate,
    "order-food": _order,
    "sign-agreement": _sign,
    "focus-text": _focus,
    "focus-text-2": _focus,
}
"""Kind -> expert."""
