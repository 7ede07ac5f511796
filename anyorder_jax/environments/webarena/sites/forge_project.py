"""Forge, projects: what stands below a project's address: issues, merge requests, files, members, commits."""

from __future__ import annotations

import json
import sqlite3

from anyorder_jax.environments.webarena.sites import forge_facts as facts
from anyorder_jax.environments.webarena.sites.forge import (
    ROUTES,
    forge_page,
    invitation,
    members_of,
    people,
)
from anyorder_jax.environments.webarena.sites.forge_facts import NAMESPACE, USER
from anyorder_jax.environments.webarena.sites.forge_store import branches
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
    sent_button,
    sent_form,
    table,
    tag,
)
from anyorder_jax.environments.webarena.sites.serving import Request, Response, Store, answer, one, redirect

_STATES = {"opened": "Open", "closed": "Closed", "all": "All"}


def find(store: Store, space: str, name: str) -> sqlite3.Row:
    """A project. Raises MissingError."""
    return one(store, "SELECT * FROM project WHERE path = ?", f"{space}/{name}")


def project_page(project: sqlite3.Row, title: str, *body: object) -> Markup:
    """A page with the project's own menu."""
    path = f"/{project['path']}"
    menu = {
        project["name"]: path,
        "Issues": f"{path}/-/issues",
        "Milestones": f"{path}/-/milestones",
        "Commits": f"{path}/-/commits",
        "Merge requests": f"{path}/-/merge_requests",
        "Members": f"{path}/-/project_members",
        "Web IDE": f"{path}/-/ide",
    }
    return forge_page(title, tag("nav", listing(link(*entry) for entry in menu.items()), aria_label="Project"), *body)


@ROUTES("GET", "/{space}/{name}")
def _showfind(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    path, stars = f"/{project['path']}", project["stars"] + project["is_starred"]
    files = store.execute("SELECT * FROM file WHERE project = ? ORDER BY branch, path", (project["path"],))
    fork = {
        "id": str(project["id"]),
        "name": project["name"],
        "namespace_id": NAMESPACE,
        "path": name,
        "visibility": "public",
    }
    return project_page(
        project,
        project["name"],
        tag("p", f"Project ID: {project['id']}"),
        sent_button("Unstar" if project["is_starred"] else "Star", "POST", f"{path}/toggle_star.json", {}, "form"),
        tag("p", f"{stars} stars"),
        sent_button("Fork", "POST", f"/api/v4/projects/{project['id']}/fork", fork),
        field("Clone with SSH", "clone", f"ssh://git@127.0.0.1:2222{path}.git", readonly=True),
        listing(
            link(f"{row['path']} ({row['branch']})", f"{path}/-/edit/{row['branch']}/{row['path']}") for row in files
        ),
        link("New file", f"{path}/-/new/{branches(project['path'])[0]}"),
    )


@ROUTES("POST", "/{space}/{name}/toggle_star.json")
def _toggle_star(store: Store, request: Request, space: str, name: str) -> Response:
    store.execute("UPDATE project SET is_starred = 1 - is_starred WHERE path = ?", (f"{space}/{name}",))
    project = find(store, space, name)
    return answer({"star_count": project["stars"] + project["is_starred"]})


@ROUTES("POST", "/api/v4/projects/{number}/fork")
def _fork(store: Store, request: Request, number: str) -> Response:
    path = f"{USER}/{request.body['path']}"
    if store.execute("SELECT 1 FROM project WHERE path = ?", (path,)).fetchone():
        return answer({"message": f"there is a project {path} already"}, 409)
    row = (path, request.body["name"], int(number))
    made = store.execute("INSERT INTO project (path, name, parent) VALUES (?, ?, ?)", row).lastrowid
    return answer({"id": made, "path_with_namespace": path}, 201)


@ROUTES("GET", "/{space}/{name}/-/project_members")
def _show_members(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    return project_page(
        project, "Project members", members_of(store, project["path"]), invitation(store, "projects", project["id"])
    )


@ROUTES("GET", "/{space}/{name}/-/issues")
def _show_issues(store: Store, request: Request, space: str, name: str) -> Markup:
    project, asked = find(store, space, name), request.query
    state, text = asked.get("state", "opened"), f"%{asked.get('search', '')}%"
    query, values = "SELECT * FROM issue WHERE project = ? AND title LIKE ?", [project["path"], text]
    label, other = asked.get("label_name[]", ""), asked.get("not[label_name][]", "")
    for part, value in (("state = ?", "" if state == "all" else state), ("label != ?", other)):
        query, values = (f"{query} AND {part}", [*values, value]) if value else (query, values)
    if label:
        query, values = f"{query} AND label = ?", [*values, "" if label == "None" else label]
    rows = store.execute(f"{query} ORDER BY id DESC", values).fetchall()
    labels = {"": "Any", "None": "None"} | {one: one for one in facts.LABELS.get(project["path"], ())}
    path = f"/{project['path']}/-/issues"
    search = [
        choice("State", "state", _STATES, state),
        choice("Label", "label_name[]", labels, label),
        choice("Label is not", "not[label_name][]", {key: one for key, one in labels.items() if key != "None"}, other),
        field("Search", "search", asked.get("search", "")),
        button("Filter"),
    ]
    ask = json.dumps({"operationName": "getIssuesCount", "variables": {"fullPath": project["path"]}})
    shown = [link(f"#{row['number']} {row['title']}", f"{path}/{row['number']}") for row in rows]
    loads = tag("div", data_load="/api/graphql", data_method="POST", data_kind="application/json", data_body=ask)
    return project_page(
        project,
        "Issues",
        link("New issue", f"{path}/new"),
        form(f"{path}/", *search, method="get"),
        loads,
        listing(shown),
    )


@ROUTES("GET", "/{space}/{name}/-/issues/new")
def _show_new_issue(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    fields = [
        field("Title", "issue[title]", required=True),
        field("Description", "issue[description]", kind="area"),
        choice("Assignee", "issue[assignee_ids][]", {"0": "Unassigned"} | people(store)),
        field("Due date", "issue[due_date]"),
    ]
    return project_page(project, "New Issue", form(f"/{project['path']}/-/issues", *fields, button("Create issue")))


@ROUTES("POST", "/{space}/{name}/-/issues")
def _create_issue(store: Store, request: Request, space: str, name: str) -> Response:
    project, sent = find(store, space, name), request.form
    number = 1 + one(store, "SELECT COALESCE(MAX(number), 0) FROM issue WHERE project = ?", project["path"])[0]
    row = (project["path"], number, sent["issue[title]"], int(sent["issue[assignee_ids][]"]), sent["issue[due_date]"])
    query = (
        "INSERT INTO issue (project, number, title, state, label, assignee, due) VALUES (?, ?, ?, 'opened', '', ?, ?)"
    )
    store.execute(query, row)
    return redirect(f"/{project['path']}/-/issues/{number}")


@ROUTES("GET", "/{space}/{name}/-/issues/{number}")
def _show_issue(store: Store, request: Request, space: str, name: str, number: str) -> Markup:
    project = find(store, space, name)
    issue = one(store, "SELECT * FROM issue WHERE project = ? AND number = ?", project["path"], number)
    users = people(store)
    options = {"[]": "Unassigned"} | {f"[{key}]": text for key, text in users.items()}
    chosen = f"[{issue['assignee']}]" if issue["assignee"] else "[]"
    assign = sent_form(
        "PUT",
        f"/{project['path']}/-/issues/{number}.json",
        choice("Assignee", "issue.assignee_ids", options, chosen, data_json="1"),
        button("Apply"),
    )
    shown = users.get(str(issue["assignee"]), "none")
    return project_page(
        project,
        issue["title"],
        tag("p", f"State: {issue['state']}"),
        tag("p", f"Assigned to: {shown}"),
        tag("p", f"Due date: {issue['due'] or 'none'}"),
        assign,
        notes(store, project, "Issue", issue["id"]),
    )


@ROUTES("PUT", "/{space}/{name}/-/issues/{number}.json")
def _assign_issue(store: Store, request: Request, space: str, name: str, number: str) -> Response:
    wanted = request.body["issue"]["assignee_ids"]
    values = (wanted[0] if wanted else None, f"{space}/{name}", number)
    store.execute("UPDATE issue SET assignee = ? WHERE project = ? AND number = ?", values)
    return answer({"assignees": wanted})


def notes(store: Store, project: sqlite3.Row, kind: str, number: int) -> Markup:
    """What was said, and the form to say more.

    Args:
      store: of the forge.
      project: where it is said.
      kind: "Issue" or "merge_request".
      number: of the issue or merge request, among all of the forge.
    """
    rows = store.execute("SELECT * FROM note WHERE kind = ? AND target = ? ORDER BY rowid", (kind, number))
    said = listing(f"@{row['author']} said: {row['text']}" for row in rows)
    url = f"/{project['path']}/notes?target_id={number}&target_type={kind}"
    shown = {"merge_request": "MergeRequest"}.get(kind, kind)
    return joined(
        [
            said,
            sent_form(
                "POST",
                url,
                hidden("note.noteable_type", shown),
                hidden("note.noteable_id", number, data_json="1"),
                field("Comment", "note.note", kind="area"),
                button("Comment"),
            ),
        ]
    )


@ROUTES("POST", "/{space}/{name}/notes")
def _add_note(store: Store, request: Request, space: str, name: str) -> Response:
    row = (request.query["target_type"], int(request.query["target_id"]), USER, request.body["note"]["note"])
    store.execute("INSERT INTO note VALUES (?, ?, ?, ?)", row)
    return answer({"note": row[3]})


@ROUTES("GET", "/{space}/{name}/-/milestones")
def _show_milestones(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    rows = store.execute("SELECT * FROM milestone WHERE project = ?", (project["path"],))
    shown = table(("Title", "Start date", "Due date"), [(row["title"], row["start"], row["due"]) for row in rows])
    return project_page(project, "Milestones", link("New milestone", f"/{project['path']}/-/milestones/new"), shown)


@ROUTES("GET", "/{space}/{name}/-/milestones/new")
def _show_new_milestone(store: Store, request: Request, space: str, name: str) -> Markup:
    project = find(store, space, name)
    fields = [
        field("Title", "milestone[title]", required=True),
        field("Start Date", "milestone[start_date]"),
        field("Due Date", "milestone[due_date]"),
        field("Description", "milestone[description]", kind="area"),
    ]
    return project_page(
        project, "New Milestone", form(f"/{project['path']}/-/milestones", *fields, button("Create milestone"))
    )


@ROUTES("POST", "/{space}/{name}/-/milestones")
def _create_milestone(store: Store, request: Request, space: str, name: str) -> Response:
    row = (f"{space}/{name}", *(request.form[f"milestone[{key}]"] for key in ("title", "start_date", "due_date")))
    store.execute("INSERT INTO milestone VALUES (?, ?, ?, ?)", row)
    return redirect(f"/{space}/{name}/-/milestones")
