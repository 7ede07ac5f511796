"""Forge, code: merge requests, files, commits."""

from __future__ import annotations

import sqlite3

from anyorder_jax.environments.webarena.sites.forge import (
    ROUTES,
    people,
)
from anyorder_jax.environments.webarena.sites.forge_facts import USER
from anyorder_jax.environments.webarena.sites.forge_project import find, notes, project_page
from anyorder_jax.environments.webarena.sites.forge_store import branches, seed
from anyorder_jax.environments.webarena.sites.markup import (
    Markup,
    button,
    choice,
    field,
    form,
    hidden,
    link,
    listing,
    sent_form,
    tag,
)
from anyorder_jax.environments.webarena.sites.serving import (
    MissingError,
    Request,
    Response,
    Site,
    Store,
    answer,
    insert,
    one,
    redirect,
)


def site() -> Site:
    return Site("gitlab", ROUTES, seed)


@ROUTES("GET", "/{space}/{name}/-/commits")
def _show_commits(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    rows = store.execute("SELECT * FROM work WHERE project = ? ORDER BY day DESC, author", (project["path"],))
    return project_page(
        project, "Commits", listing(f"{row['author']} authored on {row['day']}: {row['title']}" for row in rows)
    )


@ROUTES("GET", "/{space}/{name}/-/merge_requests")
def _show_requests(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    path = f"/{project['path']}/-/merge_requests"
    rows = store.execute("SELECT * FROM request WHERE project = ? ORDER BY id DESC", (project["path"],))
    shown = listing(link(row["title"], f"{path}/{row['number']}") for row in rows)
    return project_page(project, "Merge requests", link("New merge request", f"{path}/new"), shown)


@ROUTES("GET", "/{space}/{name}/-/merge_requests/new")
def _show_new_request(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    options = {branch: branch for branch in branches(project["path"])}
    users = people(store)
    fields = [
        choice("Source branch", "merge_request[source_branch]", options),
        choice("Target branch", "merge_request[target_branch]", options),
        hidden("merge_request[source_project_id]", project["id"]),
        hidden("merge_request[target_project_id]", project["id"]),
        field("Title", "merge_request[title]"),
        choice("Assignee", "merge_request[assignee_ids][]", {"0": "Unassigned"} | users),
        choice("Reviewer", "merge_request[reviewer_ids][]", {"0": "Unassigned"} | users),
    ]
    action = f"/{project['path']}/-/merge_requests"
    return project_page(project, "New merge request", form(action, *fields, button("Create merge request")))


@ROUTES("POST", "/{space}/{name}/-/merge_requests")
def _create_request(store: Store, request: Request, space: str, name: str) -> Response:
    project = find(store, space, name)
    source, target, title = (
        request.form[f"merge_request[{key}]"] for key in ("source_branch", "target_branch", "title")
    )
    reviewer = int(request.form["merge_request[reviewer_ids][]"])
    number = 1 + one(store, "SELECT COALESCE(MAX(number), 0) FROM request WHERE project = ?", project["path"])[0]
    about = {"project": project["path"], "number": number, "title": title or f"Merge {source}", "author": USER}
    insert(store, "request", **about, source=source, target=target, reviewer=reviewer)
    return redirect(f"/{project['path']}/-/merge_requests/{number}")


@ROUTES("GET", "/{space}/{name}/-/merge_requests/{number}")
def _show_request(store: Store, request: Request, space: str, name: str, number: str) -> Markup:
    project = find(store, space, name)
    row = one(store, "SELECT * FROM request WHERE project = ? AND number = ?", project["path"], number)
    about = tag("p", f"@{row['author']} asks to merge {row['source']} into {row['target']}")
    return project_page(project, row["title"], about, notes(store, project, "merge_request", row["id"]))


def _file_form(project: sqlite3.Row, method: str, branch: str, path: str, text: str) -> Markup:
    action, name = ("update", "file_path") if method == "put" else ("create", "file_name")
    where = f"/{project['path']}/-/{action}/{branch}" + (f"/{path}" if path else "")
    return form(
        where,
        hidden("_method", method),
        field("File name", name, path),
        hidden("original_branch", branch),
        field("Content", "content", text, kind="area"),
        field("Target branch", "branch_name", branch),
        field("Commit message", "commit_message", f"Update {path}"),
        button("Commit changes"),
    )


@ROUTES("GET", "/{space}/{name}/-/edit/{branch}/{path:path}")
def _show_file(store: Store, request: Request, space: str, name: str, branch: str, path: str) -> Markup:
    project = find(store, space, name)
    row = one(store, "SELECT * FROM file WHERE project = ? AND branch = ? AND path = ?", project["path"], branch, path)
    return project_page(project, "Edit file", _file_form(project, "put", branch, path, row["text"]))


@ROUTES("GET", "/{space}/{name}/-/new/{branch}")
def _show_new_file(store: Store, request: Request, space: str, name: str, branch: str) -> Markup:
    project = find(store, space, name)
    return project_page(project, "New file", _file_form(project, "post", branch, "", ""))


@ROUTES("POST", "/{space}/{name}/-/update/{branch}/{path:path}", "/{space}/{name}/-/create/{branch}")
def _save_file(store: Store, request: Request, space: str, name: str, branch: str, path: str = "") -> Response:
    sent, project = request.form, find(store, space, name)
    renamed = sent["file_path"] if path else sent["file_name"]
    if path and sent["branch_name"] == branch:
        store.execute("DELETE FROM file WHERE project = ? AND branch = ? AND path = ?", (project["path"], branch, path))
    _keep(store, project["path"], sent["branch_name"], renamed, sent["content"])
    return redirect(f"/{project['path']}")


def _keep(store: Store, project: str, branch: str, path: str, text: str) -> None:
    store.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", (project, branch, path, text))


@ROUTES("GET", "/{space}/{name}/-/ide")
def _show_ide(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    branch = branches(project["path"])[0]
    form_ = sent_form(
        "POST",
        f"/api/v4/projects/{space}%2F{name}/repository/commits",
        hidden("branch", branch),
        hidden("commit_message", "Update files"),
        hidden("actions.0.action", "create"),
        field("File name", "actions.0.file_path"),
        field("Content", "actions.0.content", kind="area"),
        button("Commit"),
        then=f"/{project['path']}",
    )
    return project_page(project, "Web IDE", form_)


@ROUTES("POST", "/api/v4/projects/{path}/repository/commits")
def _commit(store: Store, request: Request, path: str) -> Response:
    project = one(store, "SELECT * FROM project WHERE path = ?", path)
    for action in request.body["actions"]:
        if action["action"] not in ("create", "update"):
            raise MissingError(f"a file cannot be {action['action']}d here")
        _keep(store, project["path"], request.body["branch"], action["file_path"], action["content"])
    return answer({"message": request.body["commit_message"]}, 201)
