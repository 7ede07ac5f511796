"""Forum, what is in it at first: forums, posts, comments."""

from __future__ import annotations

from anyorder_jax.environments.webarena.sites import forum_facts as facts
from anyorder_jax.environments.webarena.sites import invented
from anyorder_jax.environments.webarena.sites.forum_facts import USER
from anyorder_jax.environments.webarena.sites.serving import Store

_NUM_FILLERS = 4
"""Invented posts of a forum, below those that tasks name."""
_FIRST_PICTURE = 60_001

_TABLES = """
CREATE TABLE forum (id INTEGER PRIMARY KEY, name TEXT UNIQUE COLLATE NOCASE, title TEXT, description TEXT,
    sidebar TEXT, is_subscribed INTEGER DEFAULT 0);
CREATE TABLE post (id INTEGER PRIMARY KEY, forum TEXT COLLATE NOCASE, author TEXT, title TEXT, slug TEXT, body TEXT,
    url TEXT, votes INTEGER, heat INTEGER, disputed INTEGER, num_comments INTEGER, choice INTEGER DEFAULT 0);
CREATE TABLE comment (id INTEGER PRIMARY KEY, post INTEGER, parent INTEGER, author TEXT, body TEXT, votes INTEGER);
CREATE TABLE profile (name TEXT PRIMARY KEY, biography TEXT);
"""


def seed(store: Store) -> None:
    store.executescript(_TABLES)
    for name, number in facts.FORUMS.items():
        about = f"All about {name}"
        store.execute("INSERT INTO forum VALUES (?, ?, ?, ?, ?, 0)", (number, name, name, about, "Be kind."))
        for post, author in _posts(name):
            _seed_post(store, name, post, author)
    for number, (post, author, text) in facts.COMMENTS.items():
        store.execute("INSERT INTO comment VALUES (?, ?, NULL, ?, ?, 5)", (number, post, author, text))
    store.execute("INSERT INTO profile VALUES (?, '')", (USER,))


def _posts(name: str) -> list[tuple[int, str]]:
    """Numbers and authors of a forum's posts."""
    found = {post: author for (forum, author), posts in facts.AUTHORS.items() if forum == name for post in posts}
    named = [*facts.TOP.get(name, ()), *facts.OTHERS.get(name, ())]
    named += [
        table[name] for table in (facts.NEWEST, facts.HOTTEST, facts.DISPUTED, facts.MOST_COMMENTED) if name in table
    ]
    named += [200 + 10 * facts.FORUMS[name] % 1000 * 7 + i for i in range(_NUM_FILLERS)]
    if name == "pics":
        named += range(_FIRST_PICTURE, _FIRST_PICTURE + len(facts.PICTURES))
    for post in named:
        found.setdefault(post, invented.name("author", post))
    return sorted(found.items())


def _is_picture(number: int) -> bool:
    return 0 <= number - _FIRST_PICTURE < len(facts.PICTURES)


def title_of(number: int) -> str:
    """The title of a post that is there at first."""
    if _is_picture(number):
        return list(facts.PICTURES)[number - _FIRST_PICTURE]
    if number in facts.TITLES:
        return facts.TITLES[number]
    if number in facts.SLUGS:
        return facts.SLUGS[number].replace("-", " ").capitalize()
    return f"{invented.title('post', number)} ({number})"


def _seed_post(store: Store, forum: str, number: int, author: str) -> None:
    top = facts.TOP.get(forum, ())
    low = invented.number("votes", number) % 50
    votes = 9000 - 100 * top.index(number) if number in top else low
    title, url = title_of(number), ""
    if _is_picture(number):
        url = f"/submission_images/{facts.PICTURES[title]}.jpg"
    slug = facts.SLUGS.get(number) or invented.slug(title)
    is_first = [facts.HOTTEST.get(forum), facts.DISPUTED.get(forum), facts.MOST_COMMENTED.get(forum)]
    heat, disputed, num_comments = (
        1000 if number == first else invented.number(what, number) % 90
        for what, first in zip(("heat", "disputed", "comments"), is_first, strict=True)
    )
    body = facts.BODIES.get(number, "")
    row = (number, forum, author, title, slug, body, url, votes, heat, disputed, num_comments)
    store.execute("INSERT INTO post VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)", row)
    for i in range(2 if number not in (post for post, *_ in facts.COMMENTS.values()) else 0):
        who, what = invented.name("comment", number, i), invented.remark(number, i)
        score = 1 + invented.number(number, i) % 9
        store.execute("INSERT INTO comment (post, author, body, votes) VALUES (?, ?, ?, ?)", (number, who, what, score))
