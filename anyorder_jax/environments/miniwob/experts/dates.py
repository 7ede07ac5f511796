"""Dates: fields of dates and times, and calendars that are leafed through."""

from __future__ import annotations

from anyorder_jax.environments.miniwob.experts.page import MissingError, Page

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def _date(page: Page) -> str:
    month, day, year = page.goal_parts(r"(\d\d)/(\d\d)/(\d{4})")
    action = f"fill({page.one('Date').bid!r}, '{year}-{month}-{day}')"
    return page.click("button", "Submit") if page.done and page.done[-1] == action else action


def _time(page: Page) -> str:
    hour, minute, half = page.goal_parts(r"(\d+):(\d\d) (AM|PM)")
    hours = int(hour) % 12 + 12 * (half == "PM")
    action = f"fill({page.one('InputTime').bid!r}, '{hours:02d}:{minute}')"
    return page.click("button", "Submit") if page.done and page.done[-1] == action else action


def _calendar(page: Page) -> str:
    month, day, year = map(int, page.goal_parts(r"(\d\d)/(\d\d)/(\d{4})"))
    field = page.one("textbox")
    if field.value == f"{month:02d}/{day:02d}/{year}":
        return page.click("button", "Submit")
    texts = page.texts()
    shown = next((_MONTHS.index(text) + 1 for text in texts if text in _MONTHS), 0)
    if not shown:
        return page.click(field)
    if shown == month:
        return page.click("link", str(day))
    try:
        return page.click("link|generic|button", "Next" if shown < month else "Prev")
    except MissingError:
        return page.click(page.around("Next" if shown < month else "Prev"))


EXPERTS = {
    "enter-date": _date,
    "enter-time": _time,
    "choose-date": _calendar,
    "choose-date-easy": _calendar,
    "choose-date-medium": _calendar,
    "choose-date-nodelay": _calendar,
}
"""Kind -> expert."""
