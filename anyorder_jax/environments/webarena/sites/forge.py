"""Forge: a stand-in for WebArena's GitLab; who looks is signed in as `USER`. Projects stand in `forge_project`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from anyorder_jax.environments.webarena.sites import forge_facts as facts
from anyorder_jax.environments.webarena.sites.forge_facts import NAMESPACE, USER
from anyorder_jax.environments.webarena.sites.markup import (
    Markup,
    button,
    choice,
    field,
    form,
    hidden,
    joined,
    link,
    listing,
    page,
    sent_form,
    tag,
    tick,
)
from anyorder_jax.environments.webarena.sites.serving import (
    MissingError,
    Request,
    Response,
    Routes,
    Store,
    answer,
    one,
    redirect,
)

ROUTES = Routes()
LEVELS = {"0": "Private", "10": "Internal", "20": "Public"}
ACCESS = {"10": "Guest", "20": "Reporter", "30": "Developer", "40": "Maintainer"}


def forge_page(title: str, *body: object) -> Markup:
    """A page with the menu."""
    menu = {
        "Projects": "/",
        "Explore": "/explore",
        "To-Do List": "/dashboard/todos",
        "Assigned to you": f"/dashboard/merge_requests?assignee_username={USER}",
        "Review requests for you": f"/dashboard/merge_requests?reviewer_username={USER}",
        "New project": "/projects/new",
        "New group": "/groups/new",
        "Set status": "/-/profile/status",
        "Edit profile": "/-/profile",
        "Access tokens": "/-/profile/personal_access_tokens",
        USER: f"/{USER}",
    }
    search = form("/search", field("Search GitLab", "search"), button("Search"), method="get")
    return page(title, [tag("nav", listing(link(*entry) for entry in menu.items())), search], *body)


def people(store: Store) -> dict[str, str]:
    """Number -> how a list shows it."""
    return {
        str(row["id"]): f"{row['full_name']} (@{row['name']})"
        for row in store.execute("SELECT * FROM user ORDER BY id")
    }


def invitation(store: Store, kind: str, number: int) -> Markup:
    """The form that invites people; kind: "projects" or "groups"."""
    return sent_form(
        "POST",
        f"/api/v4/{kind}/{number}/invitations",
        choice("Username, name or email address", "user_id", people(store), multiple=True, size=10),
        choice("Select a role", "access_level", ACCESS, "10", data_json="1"),
        button("Invite"),
    )


def shown_projects(rows: Iterable[sqlite3.Row]) -> Markup:
    return listing(
        joined(
            [
                link(f"{row['path'].split('/')[0]} / {row['name']}", f"/{row['path']}"),
                tag("span", f"{row['stars']} stars"),
            ]
        )
        for row in rows
    )


@ROUTES("GET", "/")
def _show_dashboard(store: Store, request: Request) -> Markup:
    rows = store.execute("SELECT * FROM project WHERE path LIKE ? ORDER BY path COLLATE NOCASE", (f"{USER}/%",))
    return forge_page("Your projects", shown_projects(rows))


@ROUTES("GET", "/explore", "/explore/projects")
def _show_explore(store: Store, request: Request) -> Markup:
    level = request.query.get("visibility_level", "20")
    order = "stars DESC" if request.query.get("sort") == "stars_desc" else "path COLLATE NOCASE"
    rows = store.execute(f"SELECT * FROM project WHERE visibility = ? ORDER BY {order}", (level,))
    sorts = [link("Most stars", "/explore?sort=stars_desc"), link("Public", "/explore?visibility_level=20")]
    return forge_page("Explore projects", listing(sorts), shown_projects(rows))


@ROUTES("GET", "/search")
def _show_search(store: Store, request: Request) -> Markup:
    text = f"%{request.query.get('search', '')}%"
    projects = store.execute("SELECT * FROM project WHERE path LIKE ? OR name LIKE ? ORDER BY stars DESC", (text, text))
    users = store.execute("SELECT * FROM user WHERE name LIKE ? OR full_name LIKE ? ORDER BY id", (text, text))
    shown = listing(link(f"{row['full_name']} @{row['name']}", f"/{row['name']}") for row in users)
    return forge_page("Search results", shown_projects(projects), tag("h2", "Users"), shown)


@ROUTES("GET", "/dashboard/todos")
def _show_todos(store: Store, request: Request) -> Markup:
    rows = store.execute(f"SELECT * FROM request WHERE id IN ({','.join('?' * len(facts.MINE))})", facts.MINE)
    return forge_page("To-Do List", listing(f"{row['author']} asked you to look at {row['title']}" for row in rows))


@ROUTES("GET", "/dashboard/merge_requests")
def _show_my_requests(store: Store, request: Request) -> Markup:
    numbers = facts.MINE if "assignee_username" in request.query else ()
    rows = store.execute(f"SELECT * FROM request WHERE id IN ({','.join('?' * len(numbers))}) ORDER BY id", numbers)
    shown = [link(row["title"], f"/{row['project']}/-/merge_requests/{row['number']}") for row in rows]
    return forge_page("Merge requests", listing(shown))


@ROUTES("GET", "/-/profile")
def _show_profile(store: Store, request: Request) -> Markup:
    url = one(store, "SELECT value FROM setting WHERE name = 'website'")["value"]
    fields = [
        hidden("_method", "put"),
        field("Website url", "user[website_url]", url),
        button("Update profile settings"),
    ]
    return forge_page("Edit Profile", form("/-/profile", *fields))


@ROUTES("POST", "/-/profile")
def _save_profile(store: Store, request: Request) -> Response:
    store.execute("UPDATE setting SET value = ? WHERE name = 'website'", (request.form["user[website_url]"],))
    return redirect("/-/profile")


@ROUTES("GET", "/-/profile/status")
def _show_status(store: Store, request: Request) -> Markup:
    now = {row["name"]: row["value"] for row in store.execute("SELECT * FROM setting")}
    fields = [
        field("What's your status?", "message", now["message"]),
        hidden("emoji", "speech_balloon"),
        tick("Set yourself as busy", "availability", "busy", data_off="not_set", checked=now["availability"] == "busy"),
        hidden("clear_status_after", "null", data_json="1"),
        button("Set status"),
    ]
    return forge_page("Set a status", sent_form("PUT", "/api/v4/user/status", *fields, then=f"/{USER}"))


@ROUTES("PUT", "/api/v4/user/status")
def _set_status(store: Store, request: Request) -> Response:
    for name in ("message", "availability"):
        store.execute("UPDATE setting SET value = ? WHERE name = ?", (request.body[name], name))
    return answer({key: request.body[key] for key in ("message", "availability")})


@ROUTES("GET", "/-/profile/personal_access_tokens")
def _show_tokens(store: Store, request: Request) -> Markup:
    return forge_page(
        "Access tokens", tag("h2", "Feed token"), field("Feed token", "feed_token", facts.FEED_TOKEN, readonly=True)
    )


@ROUTES("GET", "/projects/new")
def _show_new_project(store: Store, request: Request) -> Markup:
    kinds = [link("Create blank project", "/projects/new/blank")]
    kinds += [link(f"Use template {text}", f"/projects/new/{name}") for name, text in facts.TEMPLATES.items()]
    return forge_page("Create new project", listing(kinds))


@ROUTES("GET", "/projects/new/{template}")
def _show_new_project_form(store: Store, request: Request, template: str) -> Markup:
    chosen = [] if template == "blank" else [hidden("project[template_name]", template)]
    readme = [
        hidden("project[initialize_with_readme]", "0"),
        tick("Initialize repository with a README", "project[initialize_with_readme]"),
    ]
    levels = [
        tick(text, "project[visibility_level]", value, type="radio", checked=value == "0")
        for value, text in LEVELS.items()
    ]
    fields = [
        *chosen,
        field("Project name", "project[name]", required=True),
        hidden("project[namespace_id]", NAMESPACE),
        field("Project slug", "project[path]", required=True),
        *levels,
        *(readme if template == "blank" else []),
    ]
    return forge_page("Create project", form("/projects", *fields, button("Create project")))


@ROUTES("POST", "/projects")
def _create_project(store: Store, request: Request) -> Response:
    path = f"{USER}/{request.form['project[path]']}"
    level, template = request.form["project[visibility_level]"], request.form.get("project[template_name]", "")
    query = "INSERT INTO project (path, name, visibility, template) VALUES (?, ?, ?, ?)"
    if store.execute("SELECT 1 FROM project WHERE path = ?", (path,)).fetchone():
        raise ValueError(f"there is a project {path} already")
    store.execute(query, (path, request.form["project[name]"], int(level), template))
    return redirect(f"/{path}")


@ROUTES("GET", "/groups/new")
def _show_new_group(store: Store, request: Request) -> Markup:
    fields = [field("Group name", "group[name]", required=True), field("Group URL", "group[path]", required=True)]
    return forge_page("Create group", form("/groups", *fields, button("Create group")))


@ROUTES("POST", "/groups")
def _create_group(store: Store, request: Request) -> Response:
    path = request.form["group[path]"]
    store.execute("INSERT INTO team (path, name) VALUES (?, ?)", (path, request.form["group[name]"]))
    return redirect(f"/{path}")


@ROUTES("GET", "/groups/{path}/-/group_members")
def _show_group_members(store: Store, request: Request, path: str) -> Markup:
    group = one(store, "SELECT * FROM team WHERE path = ?", path)
    return forge_page("Group members", members_of(store, path), invitation(store, "groups", group["id"]))


def members_of(store: Store, place: str) -> Markup:
    query = "SELECT * FROM member JOIN user ON user.id = member.user WHERE place = ?"
    return listing(
        f"{row['full_name']} @{row['name']} {ACCESS[str(row['access'])]}" for row in store.execute(query, (place,))
    )


@ROUTES("POST", "/api/v4/{kind}/{number}/invitations")
def _invite(store: Store, request: Request, kind: str, number: str) -> Response:
    table = {"projects": "project", "groups": "team"}[kind]
    place = one(store, f"SELECT path FROM {table} WHERE id = ?", number)["path"]
    invited: Mapping[str, Any] = request.body
    for user in str(invited["user_id"]).split(","):
        store.execute("INSERT INTO member VALUES (?, ?, ?)", (place, int(user), int(invited["access_level"])))
    return answer({"status": "success"}, 201)


@ROUTES("POST", "/users/{name}/follow.json")
def _follow(store: Store, request: Request, name: str) -> Response:
    store.execute("UPDATE user SET is_followed = 1 WHERE name = ?", (name,))
    return redirect(f"/{name}")


@ROUTES("POST", "/api/graphql")
def _query_graph(store: Store, request: Request) -> Response:
    """What the page of issues asks when it opens: how many there are."""
    path = request.referer.split("/-/")[0].strip("/")
    rows = store.execute("SELECT state, COUNT(*) FROM issue WHERE project = ? GROUP BY state", (path,))
    return answer({"data": {"project": {"issues": dict(rows.fetchall())}}})


@ROUTES("GET", "/{name}")
def _show_user(store: Store, request: Request, name: str) -> Markup:
    group = store.execute("SELECT * FROM team WHERE path = ?", (name,)).fetchone()
    if group:
        return forge_page(group["name"], link("Members", f"/groups/{name}/-/group_members"), members_of(store, name))
    user = store.execute("SELECT * FROM user WHERE name = ?", (name,)).fetchone()
    projects = store.execute("SELECT * FROM project WHERE path LIKE ? ORDER BY path", (f"{name}/%",)).fetchall()
    if not user and not projects:
        raise MissingError("there is no such user")
    now = {row["name"]: row["value"] for row in store.execute("SELECT * FROM setting")}
    about = [tag("p", f"@{name}")]
    if name == USER:
        about += [tag("p", f"Status: {now['message']} {now['availability']}"), tag("p", now["website"])]
    elif user and user["is_followed"]:
        about.append(tag("p", "You follow this user"))
    elif user:
        about.append(form(f"/users/{user['name']}/follow.json", button("Follow")))
    return forge_page(user["full_name"] if user else name, *about, shown_projects(projects))
