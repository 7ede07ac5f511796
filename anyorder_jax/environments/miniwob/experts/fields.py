"""Fields: tasks in which something is read and typed."""

from __future__ import annotations

import re

from anyorder_jax.environments.miniwob.experts.page import MissingError, Page, ordinal


def _submit(page: Page) -> str:
    return page.click("button", "Submit")


def _login(page: Page) -> str:
    user, password = page.quoted
    if page.shows("button", "Cancel"):  # "your session is about to expire"
        return page.click("button", "Cancel" if page.shows("button", "OK") else "OK")
    typed = page.typed(page.one("textbox"), user) or page.typed(page.one("textbox", None, 1), password)
    return typed or page.click("button", "Login" if page.shows("button", "Login") else "OK")


def _password(page: Page) -> str:
    first, second = page.one("textbox"), page.one("textbox", None, 1)
    return page.typed(first, page.quoted[0]) or page.typed(second, page.quoted[0]) or _submit(page)


def _text(page: Page) -> str:
    text = page.quoted[0]
    if "upper case" in page.goal:
        text = text.upper()
    elif "lower case" in page.goal:
        text = text.lower()
    return page.typed(page.one("textbox"), text) or _submit(page)


def _copy(page: Page) -> str:
    """The texts come first, the field to paste into last; with one text they stand in either order."""
    boxes = page.all("textbox", "")
    if len(boxes) > 2:
        source, field = boxes[ordinal(page.goal_parts(r"the (\d+)\w\w ")[0])], boxes[-1]
    elif len(boxes) == 2:
        source, field = sorted(boxes, key=lambda box: -len(box.value or ""))
    else:
        raise MissingError("there are texts missing")
    return page.typed(field, source.value or "") or _submit(page)


def _letters(page: Page) -> str:
    return page.typed(page.one("textbox"), "".join(page.texts()[: _shown(page)])) or _submit(page)


def _shown(page: Page) -> int:
    """How many texts stand before the field."""
    return sum(node.role == "StaticText" for node in page.nodes[: page.nodes.index(page.one("textbox"))])


def _word(page: Page) -> str:
    number = ordinal(page.goal_parts(r"the (\d+)\w\w word")[0])
    words = page.texts()[0].split()
    if number >= len(words):
        raise MissingError("the paragraph is shorter")
    return page.typed(page.one("textbox"), words[number].strip(".,")) or _submit(page)


def _last_word(page: Page) -> str:
    text = page.one("textbox").value or ""
    return page.typed(page.one("textbox", None, 1), text.split()[-1].strip(".,")) or _submit(page)


def _cells(page: Page) -> dict[str, str]:
    names = [node.name for node in page.all("cell")]
    return dict(zip(names[::2], names[1::2], strict=False))


def _table(page: Page) -> str:
    label = page.goal_parts(r"the value of (.*) into")[0]
    cells = _cells(page)
    if label not in cells:
        raise MissingError(f"there is no {label}")
    return page.typed(page.one("textbox"), cells[label]) or _submit(page)


def _table_2(page: Page) -> str:
    cells = _cells(page)
    labels = [text.rstrip(":") for text in page.texts() if text.endswith(":")]
    for number, label in enumerate(labels):
        if label not in cells:
            raise MissingError(f"there is no {label}")
        if action := page.typed(page.one("textbox", None, number), cells[label]):
            return action
    return _submit(page)


def _arithmetic(page: Page) -> str:
    for text in page.texts():
        if found := re.fullmatch(r"(-?\d+) ([-+x]) (-?\d+) =", text):
            a, b = int(found[1]), int(found[3])
            answer = {"+": a + b, "-": a - b, "x": a * b}[found[2]]
            return page.typed(page.one("textbox"), str(answer)) or _submit(page)
    raise MissingError("there is no problem")


def _algebra(page: Page) -> str:
    for text in page.texts():
        if found := re.fullmatch(r"(x|-?\d+) ([-+]) (x|-?\d+) = (-?\d+)", text):
            left, sign, right, total = found[1], found[2], found[3], int(found[4])
            if left == "x":
                answer = total - int(right) if sign == "+" else total + int(right)
            else:
                answer = total - int(left) if sign == "+" else int(left) - total
            return page.typed(page.one("textbox"), str(answer)) or _submit(page)
    raise MissingError("there is no equation")


def _guess(page: Page) -> str:
    field = page.one("spinbutton")
    said = re.search(r"(higher|lower) than\s*(\d)", " ".join(page.texts()))
    guess = 5 if not said else int(said[2]) + (1 if said[1] == "higher" else -1)
    return page.typed(field, str(guess)) or _submit(page)


def _movies(page: Page) -> str:
    """Fields and labels stand in the same order, whatever the layout."""
    genre, director, year = page.goal_parts(r"Search for (.*?) movies directed by (.*?) from year (\d+)")
    wanted = {"genre": genre, "director": director, "year": year, "date": year}
    labels = []
    for node in page.nodes:
        words = node.name.lower().strip(" :").split()
        labels += [word for word in words if word in wanted and len(words) < 3 and node.role != "textbox"][:1]
    for number, label in enumerate(labels):
        if action := page.typed(page.one("textbox", None, number), wanted[label]):
            return action
    names = ("Submit", "Search", "Go!")
    button = next((node for node in page.all("button") if node.name in names), None)
    return page.click(button or page.around(lambda text: text in names))


def _complete(page: Page) -> str:
    """The start is typed, and out of the list that opens one item is chosen that ends as it should."""
    start, *ends = page.quoted
    end = ends[0] if ends else ""
    field = page.one("textbox")

    def fits(text: str) -> bool:
        return text.startswith(start) and text.endswith(end)

    if fits(field.value or "") and field.value != start:
        return _submit(page)
    for node in page.nodes:
        if node.role != "textbox" and fits(node.name) and node.name != field.value:
            return page.click(node if node.bid else page.around(node.name))
    return page.typed(field, start) or f"clear({field.bid!r})"  # the list was closed: once more


EXPERTS = {
    "login-user": _login,
    "login-user-popup": _login,
    "enter-password": _password,
    "enter-text": _text,
    "enter-text-2": _text,
    "enter-text-dynamic": _text,
    "copy-paste": _copy,
    "copy-paste-2": _copy,
    "text-transform": _letters,
    "find-word": _word,
    "scroll-text": _last_word,
    "read-table": _table,
    "read-table-2": _table_2,
    "simple-arithmetic": _arithmetic,
    "simple-algebra": _algebra,
    "guess-number": _guess,
    "multi-layouts": _movies,
    "multi-orderings": _movies,
    "use-autocomplete": _complete,
    "use-autocomplete-nodelay": _complete,
}
"""Kind -> expert."""
