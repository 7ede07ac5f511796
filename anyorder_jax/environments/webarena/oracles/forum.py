"""Oracles of the forum."""

from __future__ import annotations

from collections.abc import Sequence

from anyorder_jax.environments.web.tree import Node
from anyorder_jax.environments.webarena.oracles.registry import plans
from anyorder_jax.environments.webarena.oracles.steps import Plan, Step, Task, click, fill, links, select, texts
from anyorder_jax.environments.webarena.sites import forum_facts as facts
from anyorder_jax.environments.webarena.sites.forum_store import title_of

_NAMES = {str(number): name for name, number in facts.FORUMS.items()}


@plans(6)
def biography(task: Task) -> list[Step]:
    text = task.sent()["user_biography[biography]"]
    return [*links(facts.USER, "Edit biography"), fill("Biography", text), click("button", "Save")]


@plans(7)
def new_forum(task: Task) -> list[Step]:
    fields = [
        fill(key.capitalize(), task.sent()[f"forum[{key}]"]) for key in ("name", "title", "description", "sidebar")
    ]
    return [*links("Create forum"), *fields, click("button", "Create forum")]


def _submission(task: Task) -> list[Step]:
    sent = task.sent()
    number = sent["submission[forum]"]
    name = _NAMES[number]
    body = [fill("Body", sent["submission[body]"])] if "submission[body]" in sent else []
    fields = [fill("Title", sent["submission[title]"]), *body, select("Forum", name)]
    return [*links("Submit"), *fields, click("button", "Create submission")]


@plans(5, 12, 13, 15, 16, 19, 3765, 6100)
def submission(task: Task) -> list[Step]:
    return _submission(task)


@plans(9)
def submission_and_comment(task: Task) -> list[Step] | None:
    if "{{" in task.path(1):
        return None  # the scorer looks for an address that is no page's
    text = next(iter(task.sent(1).values()))
    return [*_submission(task), fill("Comment", text), click("button", "Post")]


@plans(11)
def picture_again(task: Task) -> list[Step]:
    url = task.sent()["submission[url]"]
    name = next(title for title, picture in facts.PICTURES.items() if picture in url)
    forum = _NAMES[task.sent()["submission[forum]"]]

    return [
        *links(name, "Home", "Submit"),
        fill("URL", url),
        fill("Title", task.sent()["submission[title]"]),
        select("Forum", forum),
        click("button", "Create submission"),
    ]


def _forum_of(number: int) -> str:
    """Where a post is."""
    posts = [(forum, found) for table in (facts.TOP, facts.OTHERS) for forum, found in table.items()]
    posts += [(forum, found) for (forum, _), found in facts.AUTHORS.items()]
    for forum, found in posts:
        if number in found:
            return forum
    return next(forum for forum, newest in facts.NEWEST.items() if newest == number)


@plans(22, 24, 25, 1510)
def votes(task: Task) -> list[Step] | None:
    """Of posts in a forum's list; none are there in the tasks that cannot be done."""
    numbers = [int(task.path(event).split("/")[-1].removesuffix(".json")) for event in range(len(task.events))]
    if not numbers:
        return None
    word = "Upvote" if task.sent()["choice"] == "1" else "Downvote"
    presses = [click("button", word, after=title_of(number)) for number in numbers]
    return [*links("Forums", _forum_of(numbers[0]), "Top" if task.template == 24 else "New"), *presses]


@plans(4)
def subscription(task: Task) -> list[Step] | None:
    referer = task.events[0]["headers"]["referer"]
    name, number = referer.split("/f/")[1].split("/")[:2]
    if name not in facts.FORUMS:
        return None  # a forum whose name has a space
    orders = {69581: "Hot", 81371: "Top", 17949: "Controversial", 132053: "Most commented"}
    return [*links("Forums", name, orders[int(number)], title_of(int(number))), click("button", "Subscribe")]


@plans(23)
def reply(task: Task) -> list[Step]:
    name, text = next(iter(task.sent().items()))
    if name.startswith("reply_to_submission"):
        return [fill("Comment", text), click("button", "Post")]
    number = int(name.split("_")[3].split("[")[0])
    return [fill(f"Reply to {facts.COMMENTS[number][1]}", text), click("button", f"Send to {number}")]


@plans(27)
def edited(task: Task) -> list[Step]:
    number = int(task.path().split("/")[3])
    line = task.sent()["submission[body]"]
    before = facts.BODIES.get(number, "")
    text = f"{before}\n{task.words['content']}" if before else line
    return [*links(facts.USER, title_of(number), "Edit"), fill("Body", text), click("button", "Edit submission")]


@plans(33)
def newest(task: Task) -> Plan:
    """The newest post: who, what, and how many comments have fewer votes than none."""
    names = {"personal finances": "personalfinance"}
    forum = names.get(task.words["forum"].lower(), task.words["forum"])
    name = next(one for one in facts.FORUMS if one.lower() == forum.lower())
    number = facts.NEWEST[name]

    def read(nodes: Sequence[Node]) -> dict[str, object]:
        places = [i for i, node in enumerate(nodes) if node.name == "Submitted by"]
        user = nodes[places[0] + 1].name
        low = [text for text in texts(nodes) if text.endswith("votes):") and "(-" in text]
        title = next(node.name for node in nodes if node.role == "heading")
        return {"username": user, "post_title": title, "count": len(low)}

    return Plan([*links("Forums", name, "New", title_of(number))], read)
