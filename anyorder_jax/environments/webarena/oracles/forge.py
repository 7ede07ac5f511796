"""Oracles of the code forge."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from anyorder_jax.environments.web.tree import Node
from anyorder_jax.environments.webarena.oracles.registry import plans
from anyorder_jax.environments.webarena.oracles.steps import (
    Plan,
    Step,
    Task,
    click,
    fill,
    found,
    goto,
    links,
    select,
    texts,
    value_of,
)
from anyorder_jax.environments.webarena.sites import forge_facts as facts
from anyorder_jax.environments.webarena.sites.encyclopedia_facts import PERSON
from anyorder_jax.environments.webarena.sites.forge import ACCESS, LEVELS

_PATHS = {number: path for path, (number, _, _) in facts.PROJECTS.items()}
_PEOPLE = {str(number): f"{full} (@{name})" for name, (number, full) in facts.USERS.items()}


def _project(path: str, *more: str) -> list[Step]:
    """To a project, by the list of all, and on from there."""
    return links("Explore", f"{path.split('/')[0]} / {facts.PROJECTS[path][1]}", *more)


def _path(address: str) -> str:
    """The project's, in a page's address."""
    return "/".join(address.strip("/").split("/")[:2])


@plans(303)
def todos(task: Task) -> list[Step]:
    return links("To-Do List")


@plans(290)
def assigned(task: Task) -> list[Step]:
    return links("Assigned to you")


@plans(291)
def reviews(task: Task) -> list[Step]:
    return links("Review requests for you")


@plans(325)
def public(task: Task) -> list[Step]:
    return links("Explore", "Public")


@plans(300)
def issues(task: Task) -> list[Step]:
    return links("Issues")


@plans(299, 349)
def narrowed_issues(task: Task) -> list[Step]:
    """A project's issues: the filter is what the page is expected to have asked for."""
    referer = task.events[1]["headers"]["referer"]
    split = urlsplit((referer if isinstance(referer, str) else referer[0]).split("__", 2)[-1])
    asked = {key: values[0] for key, values in parse_qs(split.query).items()}
    states = {"opened": "Open", "closed": "Closed", "all": "All"}
    steps = [select("State", states[asked["state"]])] if asked["state"] != "opened" else []
    if "search" in asked:
        steps.append(fill("Search", asked["search"], after="Label is not"))
    for label, name in (("Label", "label_name[]"), ("Label is not", "not[label_name][]")):
        steps += [select(label, asked[name])] if name in asked else []
    return [*_project(_path(split.path), "Issues"), *steps, click("button", "Filter")]


def _new_project(task: Task) -> list[Step]:
    sent = task.sent()
    template = sent.get("project[template_name]")
    kind = f"Use template {facts.TEMPLATES[template]}" if template else "Create blank project"
    level = sent.get("project[visibility_level]", "0")
    return [
        *links("New project", kind),
        fill("Project name", sent["project[name]"]),
        fill("Project slug", sent["project[path]"]),
        click("radio", LEVELS[level]),
        click("button", "Create project"),
    ]


def _invite(users: str, access: str) -> list[Step]:
    people = [_PEOPLE[number] for number in users.split(",")]
    field = "Username, name or email address"
    return [select(field, people), select("Select a role", ACCESS[access]), click("button", "Invite")]


@plans(292, 332)
def new_project(task: Task) -> list[Step] | None:
    return _new_project(task) if task.path() == "/projects" else None  # no page of the site asks the API for one


@plans(2100)
def new_project_with_members(task: Task) -> list[Step] | None:
    if task.path() != "/projects":
        return None
    return [*_new_project(task), *links("Members"), *_invite(task.sent(1)["user_id"], "30")]


@plans(600)
def new_group(task: Task) -> list[Step]:
    sent = task.sent()
    fields = [fill("Group name", sent["group[name]"]), fill("Group URL", sent["group[path]"])]
    made = [*links("New group"), *fields, click("button", "Create group")]
    return [*made, *links("Members"), *_invite(task.sent(1)["user_id"], "30")]


@plans(351)
def members(task: Task) -> list[Step] | None:
    if not task.events:
        return None
    sent, path = task.sent(), _PATHS[int(task.path().split("/")[4])]
    return [*_project(path, "Members"), *_invite(sent["user_id"], str(sent["access_level"]))]


@plans(331)
def website(task: Task) -> list[Step]:
    url = task.sent()["user[website_url]"]
    text = url if isinstance(url, str) else url[0]
    return [*links("Edit profile"), fill("Website url", text), click("button", "Update profile settings")]


@plans(361)
def status(task: Task) -> list[Step]:
    sent = task.sent()
    message = [fill("What's your status?", sent["message"])] if "message" in sent else []
    busy = click("checkbox", "Set yourself as busy")
    return [*links("Set status"), *message, busy, click("button", "Set status")]


@plans(354)
def stars(task: Task) -> list[Step]:
    paths = [_path(task.path(event)) for event in range(len(task.events))]
    return [step for path in paths for step in (*_project(path), click("button", "Star"))]


@plans(330)
def follows(task: Task) -> list[Step]:
    steps: list[Step] = []
    for event in range(len(task.events)):
        name = task.path(event).split("/")[2]
        shown = f"{facts.USERS[name][1]} @{name}"
        steps += [fill("Search GitLab", name), click("button", "Search"), *links(shown), click("button", "Follow")]
    return steps


@plans(339)
def milestone(task: Task) -> list[Step]:
    names = {"title": "Title", "start_date": "Start Date", "due_date": "Due Date"}
    fields = [fill(name, task.sent()[f"milestone[{key}]"]) for key, name in names.items()]
    return [*links("Milestones", "New milestone"), *fields, click("button", "Create milestone")]


@plans(337)
def titled_issue(task: Task) -> list[Step]:
    words = task.sent()["issue[title]"].strip("^$").replace(".*", " ").split()
    return [*links("Issues", "New issue"), fill("Title", " ".join(words)), click("button", "Create issue")]


@plans(327)
def assigned_issue(task: Task) -> list[Step]:
    """Who is to be asked is invited first where the task expects it."""
    sent, path = task.sent(-1), _path(task.path(-1))
    invited = _invite(task.sent()["user_id"], "30") if len(task.events) > 1 else []
    fields = [
        fill("Title", sent["issue[title]"]),
        select("Assignee", _PEOPLE[sent["issue[assignee_ids][]"]]),
        fill("Due date", sent["issue[due_date]"]),
    ]
    to_members = _project(path, "Members") if invited else _project(path)
    return [*to_members, *invited, *links("Issues", "New issue"), *fields, click("button", "Create issue")]


@plans(999)
def assignee(task: Task) -> list[Step]:
    path, number = _path(task.path()), int(task.path().split("/")[-1].removesuffix(".json"))
    shown = f"#{number} {facts.ISSUES[path, number][1]}"
    person = _PEOPLE[str(task.sent()["$.issue.assignee_ids"][0])]
    steps = [*_project(path, "Issues", shown), select("Assignee", person), click("button", "Apply")]
    if len(task.events) > 1:
        steps += [fill("Comment", "@primer, have a look"), click("button", "Comment")]
    return steps


@plans(348, 360)
def note(task: Task) -> list[Step]:
    number = task.asked().get("target_id") or parse_qs(urlsplit(task.path()).query)["target_id"][0]
    path, title, _ = facts.REQUESTS[int(number)]
    text = task.sent()["$.note.note"].strip("^$").replace(".*", "")
    return [*_project(path, "Merge requests", title), fill("Comment", text), click("button", "Comment")]


@plans(352)
def forks(task: Task) -> list[Step]:
    paths = [_PATHS[int(task.path(event).split("/")[4])] for event in range(len(task.events))]
    return [step for path in paths for step in (*_project(path), click("button", "Fork"))]


@plans(335)
def merge_request(task: Task) -> list[Step] | None:
    if not task.events:
        return None
    sent, path = task.sent(), _path(task.path())
    fields = [
        select("Source branch", sent["merge_request[source_branch]"]),
        select("Target branch", sent["merge_request[target_branch]"]),
        select("Reviewer", _PEOPLE[sent["merge_request[reviewer_ids][]"]]),
    ]
    return [*_project(path, "Merge requests", "New merge request"), *fields, click("button", "Create merge request")]


@plans(308)
def page_title(task: Task) -> list[Step]:
    sent = task.sent()
    title = sent["content"].split("<title>")[1].split("</title>")[0]
    branch = sent["branch_name"] if sent["branch_name"].isascii() and "^" not in sent["branch_name"] else "other-title"

    def changed(nodes: Sequence[Node]) -> str:
        text = found(nodes, "textbox", "Content").value or ""
        before, rest = text.split("<title>")
        return f"{before}<title>{title}</title>{rest.split('</title>')[1]}"

    to_branch = [fill("Target branch", branch)] if branch != "main" else []
    return [*links("index.html (main)"), fill("Content", changed), *to_branch, click("button", "Commit changes")]


@plans(355)
def licence(task: Task) -> list[Step]:
    steps: list[Step] = []
    for event in range(len(task.events)):
        path = _path(task.path(event))
        name = next(name for project, name in facts.FILES if project == path and name.startswith("LICENSE"))
        text = task.sent(event)["content"].strip("^$").replace(".*", " ").strip()
        branch = task.sent(event)["branch_name"]
        fields = [fill("File name", "LICENSE"), fill("Content", f"{text}\n")]
        steps += [*_project(path, f"{name} ({branch})"), *fields, click("button", "Commit changes")]
    return steps


@plans(329)
def clone(task: Task) -> Plan:
    repos = {
        "the best GAN python implementation": "eriklindernoren/PyTorch-GAN",
        "the most stared Covid related project": "covid19india/covid19india-react",
    }
    wanted = task.words["repo"]
    by_name = {name.lower(): path for path, (_, name, _) in facts.PROJECTS.items()}
    return Plan(_project(repos.get(wanted) or by_name[wanted.lower()]), value_of("textbox", "Clone with SSH"))


@plans(298)
def who(task: Task) -> Plan:
    path = next(path for path in facts.MEMBERS if path.endswith(task.words["repo"]))
    return Plan(
        _project(path, "Members"),
        lambda nodes: [text.split("@")[1].split()[0] for text in texts(nodes) if " @" in text],
    )


@plans(312)
def token(task: Task) -> Plan:
    return Plan(links("Access tokens"), value_of("textbox", "Feed token"))


@plans(320, 322)
def commits(task: Task) -> Plan:
    """How many lines of a project's list name these people on this day."""
    repo = task.words.get("repo")
    paths = [path for path in facts.PROJECTS if path.split("/")[1] == repo]
    day = datetime.strptime(task.words["date"], "%B %d, %Y").date().isoformat()
    names = [name.lower() for name in task.words["user"].split(" and ")]

    def count(nodes: Sequence[Node]) -> Any:
        lines = [text.lower() for text in texts(nodes) if f"authored on {day}" in text]
        return sum(any(line.startswith(name) for name in names) for line in lines)

    return Plan([*(_project(paths[0]) if paths else []), *links("Commits")], count)


@plans(87)
def readme(task: Task) -> list[Step]:
    """Looked up in the encyclopedia, then written in the forge."""
    content = task.sent(1)["$.actions[0].content"]
    there = [goto("__WIKIPEDIA__/index.html"), *links(PERSON), goto("__GITLAB__")]
    fields = [fill("File name", "README.md"), fill("Content", content)]
    return [*there, *_new_project(task), *links("Web IDE"), *fields, click("button", "Commit")]
