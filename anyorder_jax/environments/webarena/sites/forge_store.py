"""Forge, what is in it at first: people, projects, issues, merge requests, files, commits."""

from __future__ import annotations

from anyorder_jax.environments.webarena.sites import forge_facts as facts
from anyorder_jax.environments.webarena.sites import invented
from anyorder_jax.environments.webarena.sites.forge_facts import USER
from anyorder_jax.environments.webarena.sites.serving import Store, insert

_TABLES = """
CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT UNIQUE COLLATE NOCASE, full_name TEXT,
    is_followed INTEGER DEFAULT 0);
CREATE TABLE project (id INTEGER PRIMARY KEY, path TEXT UNIQUE COLLATE NOCASE, name TEXT, stars INTEGER DEFAULT 0,
    is_starred INTEGER DEFAULT 0, visibility INTEGER DEFAULT 20, template TEXT, parent INTEGER);
CREATE TABLE team (id INTEGER PRIMARY KEY, path TEXT UNIQUE COLLATE NOCASE, name TEXT);
CREATE TABLE member (place TEXT, user INTEGER, access INTEGER);
CREATE TABLE issue (id INTEGER PRIMARY KEY, project TEXT COLLATE NOCASE, number INTEGER, title TEXT, state TEXT,
    label TEXT, assignee INTEGER, due TEXT);
CREATE TABLE milestone (project TEXT COLLATE NOCASE, title TEXT, start TEXT, due TEXT);
CREATE TABLE request (id INTEGER PRIMARY KEY, project TEXT COLLATE NOCASE, number INTEGER, title TEXT, author TEXT,
    source TEXT, target TEXT, reviewer INTEGER);
CREATE TABLE note (kind TEXT, target INTEGER, author TEXT, text TEXT);
CREATE TABLE file (project TEXT COLLATE NOCASE, branch TEXT, path TEXT, text TEXT, PRIMARY KEY (project, branch, path));
CREATE TABLE work (project TEXT COLLATE NOCASE, author TEXT, day TEXT, title TEXT);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT);
"""


def seed(store: Store) -> None:
    store.executescript(_TABLES)
    for name, (number, full_name) in facts.USERS.items():
        insert(store, "user", id=number, name=name, full_name=full_name)
    for path, (number, name, stars) in facts.PROJECTS.items():
        insert(store, "project", id=number, path=path, name=name, stars=stars)
        insert(store, "file", project=path, branch=branches(path)[0], path="README.md", text=f"# {name}\n")
        _seed_issues(store, path)
    for (path, place), (number, title) in facts.ISSUES.items():
        insert(store, "issue", id=number, project=path, number=place, title=title, state="opened", label="")
    for number, (path, title, author) in facts.REQUESTS.items():
        about = {"title": title, "author": author, "source": "patch", "target": "main"}
        insert(store, "request", id=number, project=path, number=number % 1000, **about)
        writer = author if number in facts.ANSWERED else USER
        insert(store, "note", kind="merge_request", target=number, author=writer, text=invented.remark(number))
    for (path, name), text in facts.FILES.items():
        insert(store, "file", project=path, branch=branches(path)[0], path=name, text=text)
    for (path, author, day), times in facts.COMMITS.items():
        for i in range(times):
            title = invented.title(path, author, day, i)
            insert(store, "work", project=path, author=author, day=day, title=title)
    for path, names in facts.MEMBERS.items():
        for name in names:
            insert(store, "member", place=path, user=facts.USERS[name][0], access=30)
    settings = {"website": "", "message": "", "availability": "not_set"}
    store.executemany("INSERT INTO setting VALUES (?, ?)", settings.items())


def _seed_issues(store: Store, path: str) -> None:
    """One open and one closed issue for each label of a project, and for none."""
    for i, label in enumerate((*facts.LABELS.get(path, ()), "")):
        for is_closed, state in enumerate(("opened", "closed")):
            title = invented.title("issue", path, i, state)
            insert(store, "issue", project=path, number=2 * i + is_closed + 1, title=title, state=state, label=label)


def branches(path: str) -> tuple[str, ...]:
    """The branches of a project, its main one first."""
    return facts.BRANCHES.get(path, ("main",))
