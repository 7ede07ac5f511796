"""Forum: a stand-in for WebArena's discussion site; the one who looks is signed in as `USER`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from anyorder_jax.environments.webarena.sites import invented
from anyorder_jax.environments.webarena.sites.forum_facts import USER
from anyorder_jax.environments.webarena.sites.forum_store import seed
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
    sent_button,
    tag,
)
from anyorder_jax.environments.webarena.sites.serving import (
    MissingError,
    Request,
    Response,
    Routes,
    Site,
    Store,
    answer,
    one,
    redirect,
)

ROUTES = Routes()
ORDERS = {"hot": "heat", "new": "id", "top": "votes", "controversial": "disputed", "most_commented": "num_comments"}
_SHOWN = 40


def site() -> Site:
    return Site("reddit", ROUTES, seed)


def _page(title: str, *body: object) -> Markup:
    places = {
        "Home": "/",
        "Forums": "/forums",
        "Submit": "/submit",
        "Create forum": "/create_forum",
        USER: f"/user/{USER}",
    }
    return page(title, [link(*entry) for entry in places.items()], *body)


def _address(post: sqlite3.Row) -> str:
    return f"/f/{post['forum']}/{post['id']}/{post['slug']}"


def _votes(post: sqlite3.Row) -> Markup:
    """The buttons; one that was pressed takes its vote back."""
    up, down = (0 if post["choice"] == one else one for one in (1, -1))
    told = {1: "you upvoted", -1: "you downvoted"}.get(post["choice"], "")
    url = f"/sv/{post['id']}.json"
    buttons = [
        sent_button(text, "POST", url, {"choice": value}, "form")
        for text, value in (("Upvote", up), ("Downvote", down))
    ]
    return joined([*buttons, tag("span", f"{post['votes'] + post['choice']} votes {told}")])


def _listed(posts: Iterable[sqlite3.Row]) -> Markup:
    return listing(
        joined(
            [
                tag("h2", link(post["title"], post["url"] or _address(post))),
                tag(
                    "p",
                    "Submitted by ",
                    link(post["author"], f"/user/{post['author']}"),
                    " in ",
                    link(post["forum"], f"/f/{post['forum']}"),
                ),
                tag("p", link(f"{post['num_comments']} comments", _address(post))),
                _votes(post),
            ]
        )
        for post in posts
    )


def _subscription(forum: sqlite3.Row) -> Markup:
    text, verb = ("Unsubscribe", "unsubscribe") if forum["is_subscribed"] else ("Subscribe", "subscribe")
    return sent_button(text, "POST", f"/f/{forum['name']}/{verb}.json", {}, "form")


@ROUTES("GET", "/")
def _show_front(store: Store, request: Request) -> Markup:
    return _page("Postmill", _listed(store.execute("SELECT * FROM post ORDER BY heat DESC, id LIMIT 10")))


@ROUTES("GET", "/forums")
def _show_forums(store: Store, request: Request) -> Markup:
    rows = store.execute("SELECT * FROM forum ORDER BY name COLLATE NOCASE")
    return _page("List of forums", listing(link(row["name"], f"/f/{row['name']}") for row in rows))


@ROUTES("GET", "/f/{name}", "/f/{name}/{order}")
def _show_forum(store: Store, request: Request, name: str, order: str = "hot") -> Markup:
    forum = one(store, "SELECT * FROM forum WHERE name = ?", name)
    if order not in ORDERS:
        return _show_post(store, request, name, order)
    query = f"SELECT * FROM post WHERE forum = ? ORDER BY {ORDERS[order]} DESC, id LIMIT {_SHOWN}"
    sorts = [link(one.replace("_", " ").capitalize(), f"/f/{forum['name']}/{one}") for one in ORDERS]
    return _page(
        f"/f/{forum['name']}",
        tag("p", forum["description"]),
        tag("nav", listing(sorts), aria_label="Sort by"),
        link("Submit to this forum", f"/submit/{forum['name']}"),
        _subscription(forum),
        _listed(store.execute(query, (name,))),
        tag("aside", tag("p", forum["sidebar"])),
    )


@ROUTES("GET", "/f/{name}/{number}/{slug}")
def _show_post(store: Store, request: Request, name: str, number: str, slug: str = "") -> Markup:
    forum = one(store, "SELECT * FROM forum WHERE name = ?", name)
    post = one(store, "SELECT * FROM post WHERE id = ? AND forum = ?", number, name)
    comments = store.execute("SELECT * FROM comment WHERE post = ? ORDER BY id", (number,)).fetchall()
    shown = [
        joined(
            [
                tag("p", link(one["author"], f"/user/{one['author']}"), f" wrote ({one['votes']} votes):"),
                tag("p", one["body"]),
                _reply(post, one["id"], f"Reply to {one['author']}"),
            ]
        )
        for one in comments
    ]
    edit = link("Edit", f"/f/{post['forum']}/{post['id']}/-/edit") if post["author"] == USER else None
    picture = tag("p", link("Picture", post["url"])) if post["url"] else None
    return _page(
        post["title"],
        tag(
            "p",
            "Submitted by ",
            link(post["author"], f"/user/{post['author']}"),
            " in ",
            link(forum["name"], f"/f/{forum['name']}"),
        ),
        tag("p", post["body"]),
        picture,
        _votes(post),
        edit,
        _subscription(forum),
        _reply(post, None, "Comment"),
        listing(shown),
    )


def _reply(post: sqlite3.Row, comment: int | None, label: str) -> Markup:
    kind, number = ("submission", post["id"]) if comment is None else ("comment", comment)
    action = f"/f/{post['forum']}/{post['id']}/-/comment" + ("" if comment is None else f"/{comment}")
    text = field(label, f"reply_to_{kind}_{number}[comment]", kind="area")
    return form(action, text, button("Post" if comment is None else f"Send to {number}"))


@ROUTES("POST", "/f/{name}/{number}/-/comment", "/f/{name}/{number}/-/comment/{parent}")
def _add_comment(store: Store, request: Request, name: str, number: str, parent: str = "") -> Response:
    post = one(store, "SELECT * FROM post WHERE id = ? AND forum = ?", number, name)
    text = request.form[f"reply_to_comment_{parent}[comment]" if parent else f"reply_to_submission_{number}[comment]"]
    query = "INSERT INTO comment (post, parent, author, body, votes) VALUES (?, ?, ?, ?, 1)"
    store.execute(query, (number, parent or None, USER, text))
    store.execute("UPDATE post SET num_comments = num_comments + 1 WHERE id = ?", (number,))
    return redirect(_address(post))


@ROUTES("POST", "/sv/{number}.json")
def _vote(store: Store, request: Request, number: str) -> Response:
    wanted = request.form["choice"]
    if wanted not in ("-1", "0", "1"):
        raise ValueError(f"choice is -1, 0 or 1, got {wanted!r}")
    one(store, "SELECT 1 FROM post WHERE id = ?", number)
    store.execute("UPDATE post SET choice = ? WHERE id = ?", (int(wanted), number))
    return answer({"netScore": one(store, "SELECT votes + choice FROM post WHERE id = ?", number)[0]})


@ROUTES("POST", "/f/{name}/{verb}.json")
def _subscribe(store: Store, request: Request, name: str, verb: str) -> Response:
    if verb not in ("subscribe", "unsubscribe"):
        raise MissingError(f"there is no {verb}")
    is_subscribed = verb == "subscribe"
    store.execute("UPDATE forum SET is_subscribed = ? WHERE name = ?", (is_subscribed, name))
    return answer({"subscribed": is_subscribed})


@ROUTES("GET", "/submit", "/submit/{name}")
def _show_submit(store: Store, request: Request, name: str = "") -> Markup:
    forums = store.execute("SELECT id, name FROM forum ORDER BY name COLLATE NOCASE").fetchall()
    chosen = next((row["id"] for row in forums if row["name"].lower() == name.lower()), "")
    options = {"": "Choose one forum"} | {str(row["id"]): row["name"] for row in forums}
    fields = [
        field("URL", "submission[url]"),
        field("Title", "submission[title]", required=True),
        field("Body", "submission[body]", kind="area"),
        choice("Forum", "submission[forum]", options, chosen, required=True),
    ]
    return _page("Create submission", form(request.path, *fields, button("Create submission")))


@ROUTES("POST", "/submit", "/submit/{name}")
def _submit(store: Store, request: Request, name: str = "") -> Response:
    forum = one(store, "SELECT * FROM forum WHERE id = ?", request.form["submission[forum]"])
    title, body, url = (request.form[f"submission[{key}]"] for key in ("title", "body", "url"))
    query = "INSERT INTO post (forum, author, title, slug, body, url, votes, heat, disputed, num_comments) "
    row = (forum["name"], USER, title, invented.slug(title), body, url)
    number = store.execute(query + "VALUES (?, ?, ?, ?, ?, ?, 1, 99, 0, 0)", row).lastrowid
    return redirect(_address(one(store, "SELECT * FROM post WHERE id = ?", number)))


@ROUTES("GET", "/f/{name}/{number}/-/edit")
def _show_edit(store: Store, request: Request, name: str, number: str) -> Markup:
    post = one(store, "SELECT * FROM post WHERE id = ? AND forum = ?", number, name)
    if post["author"] != USER:
        raise MissingError("only its author can edit a post")
    fields = [
        field("Title", "submission[title]", post["title"], required=True),
        field("Body", "submission[body]", post["body"], kind="area"),
    ]
    return _page("Edit submission", form(request.path, *fields, button("Edit submission")))


@ROUTES("POST", "/f/{name}/{number}/-/edit")
def _edit(store: Store, request: Request, name: str, number: str) -> Response:
    values = (request.form["submission[title]"], request.form["submission[body]"], number, USER)
    store.execute("UPDATE post SET title = ?, body = ? WHERE id = ? AND author = ?", values)
    return redirect(_address(one(store, "SELECT * FROM post WHERE id = ?", number)))


@ROUTES("GET", "/user/{name}")
def _show_user(store: Store, request: Request, name: str) -> Markup:
    profile = store.execute("SELECT * FROM profile WHERE name = ?", (name,)).fetchone()
    posts = store.execute("SELECT * FROM post WHERE author = ? ORDER BY id DESC", (name,))
    is_me = name == USER
    edit = link("Edit biography", f"/user/{name}/edit_biography") if is_me else None
    return _page(name, tag("p", profile["biography"] if profile else ""), edit, _listed(posts))


@ROUTES("GET", "/user/{name}/edit_biography")
def _show_biography(store: Store, request: Request, name: str) -> Markup:
    profile = one(store, "SELECT * FROM profile WHERE name = ?", name)
    text = field("Biography", "user_biography[biography]", profile["biography"], kind="area")
    return _page("Edit biography", form(request.path, text, button("Save")))


@ROUTES("POST", "/user/{name}/edit_biography")
def _save_biography(store: Store, request: Request, name: str) -> Response:
    text = request.form["user_biography[biography]"]
    store.execute("UPDATE profile SET biography = ? WHERE name = ?", (text, name))
    return redirect(f"/user/{name}")


_FORUM_FIELDS = ("name", "title", "description", "sidebar")


@ROUTES("GET", "/create_forum")
def _show_create_forum(store: Store, request: Request) -> Markup:
    boxes = [
        field(key.capitalize(), f"forum[{key}]", kind="area" if key == "sidebar" else "text") for key in _FORUM_FIELDS
    ]
    return _page("Create new forum", form(request.path, *boxes, button("Create forum")))


@ROUTES("POST", "/create_forum")
def _create_forum(store: Store, request: Request) -> Response:
    values = [request.form[f"forum[{key}]"] for key in _FORUM_FIELDS]
    if not values[0] or store.execute("SELECT 1 FROM forum WHERE name = ?", (values[0],)).fetchone():
        raise ValueError(f"a forum needs a name that is still free, got {values[0]!r}")
    store.execute("INSERT INTO forum (name, title, description, sidebar) VALUES (?, ?, ?, ?)", values)
    return redirect(f"/f/{values[0]}")


@ROUTES("GET", "/submission_images/{name}")
def _show_picture(store: Store, request: Request, name: str) -> Markup:
    post = one(store, "SELECT * FROM post WHERE url = ?", request.path)
    return _page(f"Picture: {post['title']}", tag("p", "A picture stood here."), hidden("name", name))
