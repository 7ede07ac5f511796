"""Shop: a stand-in for WebArena's shop: what it sells. The customer's own pages stand in `shop_account`."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from anyorder_jax.environments.webarena.sites import invented
from anyorder_jax.environments.webarena.sites import shop_facts as facts
from anyorder_jax.environments.webarena.sites.markup import (
    Markup,
    button,
    field,
    form,
    hidden,
    joined,
    link,
    listing,
    page,
    tag,
    tick,
)
from anyorder_jax.environments.webarena.sites.serving import (
    Request,
    Response,
    Routes,
    Store,
    one,
    redirect,
)

ROUTES = Routes()
_ORDERS = {"name": "name COLLATE NOCASE", "price": "price"}
_NUM_FILLERS = 4
_RATING, _FIRST_STAR = 4, 15
"""Numbers that the shop's forms give to its one kind of rating and to the star before the first."""
_TABLES = """
CREATE TABLE product (id INTEGER PRIMARY KEY, slug TEXT UNIQUE, name TEXT, price REAL, category TEXT);
CREATE TABLE review (product INTEGER, nickname TEXT, title TEXT, detail TEXT, stars INTEGER);
CREATE TABLE bought (id INTEGER PRIMARY KEY, day TEXT, status TEXT, shipping REAL);
CREATE TABLE line (bought INTEGER, product INTEGER, price REAL);
CREATE TABLE wish (product INTEGER);
CREATE TABLE cart (product INTEGER, quantity INTEGER);
CREATE TABLE address (id INTEGER PRIMARY KEY, first TEXT, last TEXT, street TEXT, more TEXT, city TEXT, region TEXT,
    postcode TEXT, country TEXT);
CREATE TABLE subscriber (email TEXT PRIMARY KEY);
"""


def seed(store: Store) -> None:
    store.executescript(_TABLES)
    for number, slug in facts.SLUGS.items():
        price = 4.0 if number in facts.CHEAP else 20.0 + number % 70
        _seed_product(store, number, slug, name_of(slug), price, "")
    for number, name in facts.NAMES.items():
        _seed_product(store, number, invented.slug(name), name, 10.0 + number % 90, "")
    for place, category in enumerate(facts.CATEGORIES):
        for i in range(_NUM_FILLERS):
            name = f"{facts.CATEGORIES[category]} no. {i + 1}"
            _seed_product(store, 1000 + 10 * place + i, invented.slug(name), name, 15.0 + 7 * i, category)
        if category in facts.DEAREST:
            slug = facts.DEAREST[category]
            _seed_product(store, 1009 + 10 * place, slug, name_of(slug), 999.0, category)
    for number, (day, status, lines) in facts.ORDERS.items():
        shipping = facts.SHIPPING.get(number, facts.DEFAULT_SHIPPING)
        store.execute("INSERT INTO bought VALUES (?, ?, ?, ?)", (number, day, status, shipping))
        store.executemany("INSERT INTO line VALUES (?, ?, ?)", [(number, *line) for line in lines])
    street, city, region, postcode, _ = facts.BILLING
    row = (facts.ADDRESS, facts.FIRST_NAME, facts.LAST_NAME, street, "", city, region, postcode, "US")
    store.execute("INSERT INTO address VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def name_of(slug: str) -> str:
    """The name of a product whose address alone is known."""
    return slug.replace("-", " ").title()


def _seed_product(store: Store, number: int, slug: str, name: str, price: float, category: str) -> None:
    store.execute("INSERT INTO product VALUES (?, ?, ?, ?, ?)", (number, slug, name, price, category))
    reviews = [*facts.REVIEWS.get(number, ()), *((invented.title("review", number, i), 4 + i % 2) for i in range(2))]
    for title, stars in reviews:
        row = (number, invented.name("reviewer", number, title), title, invented.remark(number, title), stars)
        store.execute("INSERT INTO review VALUES (?, ?, ?, ?, ?)", row)


def shop_page(title: str, *body: object) -> Markup:
    """A page with the shop's menu, its search, and its letter."""
    account = {
        "One Stop Market": "/",
        "My Account": "/customer/account/",
        "My Orders": "/sales/order/history/",
        "My Wish List": "/wishlist/",
        "My Cart": "/checkout/cart/",
        "Address Book": "/customer/address/",
        "Contact Us": "/contact/",
    }
    search = form("/catalogsearch/result/", field("Search", "q"), button("Search"), method="get")
    letter = form(
        "/newsletter/subscriber/new/",
        field("Sign up for our newsletter", "email", kind="email", required=True),
        button("Subscribe"),
    )
    return page(
        title, [tag("nav", listing(link(*entry) for entry in account.items())), search], *body, tag("footer", letter)
    )


def address_of(product: Mapping[str, Any] | sqlite3.Row) -> str:
    return f"/{product['slug']}.html"


def _listed(path: str, asked: Mapping[str, str], rows: Sequence[sqlite3.Row]) -> Markup:
    """Products, and links that sort them."""
    kept = {key: value for key, value in asked.items() if key not in ("product_list_order", "product_list_dir")}
    order = {"product_list_order": asked["product_list_order"]} if "product_list_order" in asked else {}
    links = {
        **{f"Sort by {name}": kept | {"product_list_order": name} for name in _ORDERS},
        "Set Ascending Direction": kept | order | {"product_list_dir": "asc"},
        "Set Descending Direction": kept | order | {"product_list_dir": "desc"},
    }
    sorts = listing(link(text, f"{path}?{urlencode(query, quote_via=quote)}") for text, query in links.items())
    shown = listing(
        joined([link(row["name"], address_of(row)), tag("span", f"${row['price']:.2f}"), _wish_form(row)])
        for row in rows
    )
    return joined([tag("nav", sorts, aria_label="Sort By"), shown])


def _products(store: Store, match: str, values: Sequence[Any], asked: Mapping[str, str]) -> list[sqlite3.Row]:
    """Those that match at all, best first where no other order is asked for. match: an expression, larger is better."""
    order = _ORDERS.get(asked.get("product_list_order", ""), "fit DESC, id")
    direction = "DESC" if asked.get("product_list_dir") == "desc" else "ASC"
    low, _, high = asked.get("price", "").partition("-")
    query = (
        f"SELECT *, {match} AS fit FROM product WHERE fit > 0 AND price BETWEEN ? AND ? ORDER BY {order} {direction}"
    )
    return store.execute(query, (*values, float(low or 0), float(high or 1e9))).fetchall()


@ROUTES("GET", "/")
def _show_front(store: Store, request: Request) -> Markup:
    shown = listing(link(name, f"/{path}.html") for path, name in facts.CATEGORIES.items())
    return shop_page("One Stop Market", tag("nav", shown, aria_label="Categories"))


@ROUTES("GET", "/catalogsearch/result", "/catalogsearch/result/index")
def _search(store: Store, request: Request) -> Markup:
    words = request.query.get("q", "").split()
    match = " + ".join(["(name LIKE ?)"] * len(words)) or "1"
    rows = _products(store, match, [f"%{word}%" for word in words], request.query)
    body = _listed("/catalogsearch/result/index/", request.query, rows)
    return shop_page(f"Search results for: '{request.query.get('q', '')}'", body)


@ROUTES("GET", "/{path:path}.html")
def _show_listing(store: Store, request: Request, path: str) -> Markup:
    if path not in facts.CATEGORIES:
        return _product_page(store, path)
    rows = _products(store, "category = ?", [path], request.query)
    ends = [tag("input", type="text", data_end="1", aria_label=f"Price {end}") for end in ("from", "to")]
    price = form(
        f"/{path}.html", hidden("price", ""), *ends, button("Filter by price"), method="get", data_range="price"
    )
    return shop_page(facts.CATEGORIES[path], price, _listed(f"/{path}.html", request.query, rows))


def _wish_form(product: sqlite3.Row) -> Markup:
    return form("/wishlist/index/add/", hidden("product", product["id"]), button("Add to Wish List"))


def _product_page(store: Store, slug: str) -> Markup:
    product = one(store, "SELECT * FROM product WHERE slug = ?", slug)
    number = product["id"]
    packed = base64.urlsafe_b64encode(address_of(product).encode()).decode().rstrip("=")
    cart = form(
        f"/checkout/cart/add/uenc/{packed}/product/{number}/",
        hidden("product", number),
        hidden("item", number),
        field("Qty", "qty", 1),
        button("Add to Cart"),
    )
    reviews = store.execute("SELECT * FROM review WHERE product = ? ORDER BY rowid", (number,))
    shown = listing(
        joined(
            [
                tag("h3", row["title"]),
                tag("p", f"Rating: {row['stars']} stars"),
                tag("p", row["detail"]),
                tag("p", f"Review by {row['nickname']}"),
            ]
        )
        for row in reviews
    )
    stars = [
        tick(f"{star} star{'s' * (star > 1)}", f"ratings[{_RATING}]", _FIRST_STAR + star, type="radio", required=True)
        for star in range(1, 6)
    ]
    write = form(
        f"/review/product/post/id/{number}/",
        *stars,
        field("Nickname", "nickname", required=True),
        field("Summary", "title", required=True),
        field("Review", "detail", kind="area"),
        button("Submit Review"),
    )
    return shop_page(
        product["name"],
        tag("p", f"${product['price']:.2f}"),
        tag("p", facts.ABOUT.get(number, "")),
        cart,
        _wish_form(product),
        tag("h2", "Customer Reviews"),
        shown,
        write,
    )


@ROUTES("POST", "/review/product/post/id/{number}")
def _post_review(store: Store, request: Request, number: str) -> Response:
    product = one(store, "SELECT * FROM product WHERE id = ?", number)
    sent = request.form
    row = (
        product["id"],
        sent["nickname"],
        sent["title"],
        sent["detail"],
        int(sent[f"ratings[{_RATING}]"]) - _FIRST_STAR,
    )
    store.execute("INSERT INTO review VALUES (?, ?, ?, ?, ?)", row)
    return redirect(address_of(product))
