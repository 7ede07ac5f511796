"""Mail: an inbox, and posts of a social network. Their pictures have no names: which is which, their order says."""

from __future__ import annotations

from anyorder_jax.environments.miniwob.experts.page import MissingError, Page

_TRASH, _STAR = 0, 1
_REPLY, _RETWEET, _LIKE, _MORE = range(4)


def _is_inbox(page: Page) -> bool:
    return page.shows("heading", "Primary")


def _pictured(page: Page, sender: str, number: int) -> str:
    return page.click(page.after(page.place(sender), "image", number))


def _delete(page: Page) -> str:
    return _pictured(page, page.goal_parts(r"by ([\w-]+)")[0], _TRASH)


def _important(page: Page) -> str:
    return _pictured(page, page.goal_parts(r"by ([\w-]+)")[0], _STAR)


def _open(page: Page) -> str:
    return page.click(page.around(page.goal_parts(r"by ([\w-]+)")[0])) if _is_inbox(page) else ""


def _send(page: Page) -> str:
    """The send button: the last picture above what is written."""
    return page.click(page.all("image")[1])


def _forward(page: Page) -> str:
    to = page.goal_parts(r"to ([\w-]+)\.")[0]
    if action := _open(page):
        return action
    if not page.shows("textbox", ""):
        return page.click(page.around("Forward"))
    return page.typed(page.one("textbox"), to) or _send(page)


def _reply(page: Page) -> str:
    if action := _open(page):
        return action
    if not page.shows("textbox", ""):
        return page.click(page.around("Reply"))
    return page.typed(page.one("textbox"), page.quoted[0]) or _send(page)


def _any(page: Page) -> str:
    for words, expert in (("forward", _forward), ("reply", _reply), ("trash", _delete), ("star", _important)):
        if words in page.goal:
            return expert(page)
    raise MissingError("a task of another kind")


def _post(page: Page) -> str:
    user, what = page.goal_parts(r"For the user (@\w+), click on the \"(.*)\" button")
    place = page.place(user)
    if what in ("Reply", "Retweet", "Like"):
        return page.click(page.after(place, "image", ("Reply", "Retweet", "Like").index(what)))
    for node in page.nodes[place:]:
        if node.role == "StaticText" and node.name.startswith(what):
            return page.click(page.around(node.name))
        if node.role == "StaticText" and node.name.startswith("@") and node.name != user:
            break
    return page.click(page.after(place, "image", _MORE))


EXPERTS = {
    "email-inbox-delete": _delete,
    "email-inbox-important": _important,
    "email-inbox-forward": _forward,
    "email-inbox-noscroll": _any,
    "email-inbox-reply": _reply,
    "email-inbox-star-reply": _any,
    "email-inbox": _any,
    "social-media": _post,
}
"""Kind -> expert."""
