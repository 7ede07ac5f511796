"""Oracles of the shop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyorder_jax.environments.web.tree import Node
from anyorder_jax.environments.webarena.oracles.registry import plans
from anyorder_jax.environments.webarena.oracles.steps import (
    Plan,
    Reader,
    Step,
    Task,
    click,
    fill,
    found,
    goto,
    links,
    texts,
)
from anyorder_jax.environments.webarena.sites import shop_facts as facts
from anyorder_jax.environments.webarena.sites.shop import name_of

_STARS = {str(15 + star): f"{star} star{'s' * (star > 1)}" for star in range(1, 6)}


def _searched(text: str) -> list[Step]:
    return [fill("Search", text), click("button", "Search")]


def _category(path: str) -> str:
    return facts.CATEGORIES[path.removeprefix("/").removesuffix(".html")]


@plans(211)
def category(task: Task) -> list[Step]:
    return links(_category(task.path()))


@plans(137)
def sorted_category(task: Task) -> list[Step]:
    return [*links(_category(task.path())), *_sorted(task)]


def _sorted(task: Task) -> list[Step]:
    asked = task.asked()
    names = {"asc": "Set Ascending Direction", "desc": "Set Descending Direction"}
    order = links(f"Sort by {asked['product_list_order']}") if "product_list_order" in asked else []
    return [*order, *(links(names[asked["product_list_dir"]]) if "product_list_dir" in asked else [])]


@plans(139)
def priced_category(task: Task) -> list[Step]:
    price = task.asked()["price"].split("-")[1]
    return [*links(_category(task.path())), fill("Price to", price), click("button", "Filter by price")]


@plans(138)
def dearest(task: Task) -> list[Step]:
    slug = task.path().strip("/").removesuffix(".html")
    path = next(category for category, one in facts.DEAREST.items() if one == slug)
    return links(facts.CATEGORIES[path], "Sort by price", "Set Descending Direction", name_of(slug))


@plans(212, 208)
def search(task: Task) -> list[Step]:
    return [*_searched(task.asked()["q"]), *_sorted(task)]


@plans(151, 171, 207, 210)
def product(task: Task) -> list[Step]:
    """By a search for its name's first words."""
    slug = task.path().strip("/").removesuffix(".html")
    if slug not in facts.SLUGS.values():  # anything of this kind
        slug = next(one for one in facts.SLUGS.values() if "bruxism" in one)
    name = name_of(slug)
    return [*_searched(" ".join(name.split()[:3])), *links(name)]


@plans(180)
def order(task: Task) -> Plan:
    if "/view/" not in task.path():
        return Plan(links("My Orders"), status="NOT_FOUND_ERROR")
    return Plan(links("My Orders", f"View Order {int(task.path().split('/')[-2]):09d}"))


@plans(191)
def address_of_order(task: Task) -> Plan:
    return Plan(links("My Orders"), status="ACTION_NOT_ALLOWED_ERROR")


@plans(186)
def wish(task: Task) -> list[Step]:
    name = facts.NAMES[int(task.sent()["product"])]
    return [*_searched(name), *links(name), click("button", "Add to Wish List")]


@plans(189)
def any_wish(task: Task) -> list[Step]:
    text = task.words["product"]
    return [*_searched(text), click("button", "Add to Wish List")]


@plans(196)
def wish_here(task: Task) -> list[Step] | None:
    return (
        [click("button", "Add to Wish List")] if task.sent()["qty"] is None else None
    )  # the site's form names no number


@plans(145)
def cheapest(task: Task) -> list[Step]:
    slug = facts.SLUGS[int(task.sent()["item"])]
    return [goto(f"__SHOPPING__/{slug}.html"), click("button", "Add to Cart")]


@plans(156)
def again(task: Task) -> list[Step]:
    number = int(task.sent()["item"])
    order = next(order for order, (_, _, lines) in facts.ORDERS.items() if number in dict(lines))
    return [*links("My Orders", f"View Order {order:09d}", facts.NAMES[number]), click("button", "Add to Cart")]


@plans(165)
def address(task: Task) -> list[Step]:
    names = {
        "street[0]": "Street Address",
        "street[1]": "Street Address: Line 2",
        "city": "City",
        "postcode": "Zip/Postal Code",
    }
    fields = [fill(label, task.sent()[key]) for key, label in names.items() if key in task.sent()]
    return [*links("Address Book", "Change Billing Address"), *fields, click("button", "Save Address")]


@plans(194)
def review(task: Task) -> list[Step]:
    sent, number = task.sent(), int(task.path().split("/")[-2])
    name = facts.NAMES[number]
    labels = {"nickname": "Nickname", "title": "Summary", "detail": "Review"}
    fields = [fill(label, sent[key]) for key, label in labels.items()]
    order = next(order for order, (_, _, lines) in facts.ORDERS.items() if number in dict(lines))
    there = links("My Orders", f"View Order {order:09d}", name)
    return [*there, click("radio", _STARS[sent["ratings[4]"]]), *fields, click("button", "Submit Review")]


@plans(199)
def letter(task: Task) -> list[Step]:
    return [fill("Sign up for our newsletter", task.sent()["email"]), click("button", "Subscribe")]


_STATUS = {"cancelled": "Canceled", "pending": "Pending", "complete": "Complete"}


def _rows(nodes: Sequence[Node]) -> list[dict[str, str]]:
    """A list of orders."""
    start = next(place for place, node in enumerate(nodes) if node.name == "Action") + 1
    cells = [node.name for node in nodes[start:] if node.role in ("gridcell", "cell")]
    keys = ("number", "day", "total", "status", "action")
    return [dict(zip(keys, cells[i : i + 5], strict=True)) for i in range(0, len(cells) - 4, 5)]


@plans(213)
def latest_number(task: Task) -> Plan | None:
    status = _STATUS.get(task.words["status"])
    if status is None:
        return None
    return Plan(
        links("My Orders"), lambda nodes: next(row["number"] for row in _rows(nodes) if row["status"] == status)
    )


@plans(214)
def latest_total(task: Task) -> Plan | None:
    words = task.words["status"]
    wanted = [status for key, status in _STATUS.items() if key in words]
    if not wanted:
        return None
    is_not = "not" in words

    def total(nodes: Sequence[Node]) -> float:
        row = next(row for row in _rows(nodes) if (row["status"] in wanted) != is_not)
        return float(row["total"].strip("$"))

    return Plan(links("My Orders"), total)


@plans(206)
def detail(task: Task) -> Plan:
    """How an order is sent, when it was bought, what was in it, where its bill goes; of several orders their status."""
    numbers = [int(word) for word in str(task.words["order_number"]).split(" and ")]
    if task.words["info"] == "order statuses":
        return Plan(links("My Orders"), lambda nodes: _statuses(nodes, numbers))
    return Plan(links("My Orders", f"View Order {numbers[0]:09d}"), _DETAILS[task.words["info"]])


def _statuses(nodes: Sequence[Node], numbers: Sequence[int]) -> list[dict[str, str]]:
    rows = {int(row["number"]): row for row in _rows(nodes)}
    return [{"order_number": str(number), "status": rows[number]["status"]} for number in numbers]


_BOUGHT = frozenset(facts.NAMES.values())


def _address(text: str) -> dict[str, str]:
    street, city, state, postcode, country = text.split(", ")
    house, _, street = street.partition(" ")
    return {
        "house_number": house,
        "street": street,
        "city": city,
        "state": state,
        "postcode": postcode,
        "country": country,
    }


_DETAILS: Mapping[str, Reader] = {
    "shipping method": lambda nodes: texts(nodes, "Shipping Method:")[0],
    "order date": lambda nodes: texts(nodes, "Order Date:")[0],
    "product names": lambda nodes: [node.name for node in nodes if node.role == "link" and node.name in _BOUGHT],
    "billing address": lambda nodes: _address(texts(nodes, "Billing Address:")[0]),
}


@plans(136)
def low_reviews(task: Task) -> Plan | None:
    """Titles of reviews with two stars or fewer."""
    slug = task.starts[0].split("/")[-1].removesuffix(".html")
    if not any(facts.SLUGS[number] == slug for number in facts.REVIEWS):
        return None

    def read(nodes: Sequence[Node]) -> list[str]:
        title, low = "", []
        for node in nodes:
            title = node.name if node.role == "heading" else title
            if node.name in ("Rating: 1 stars", "Rating: 2 stars"):
                low.append(title)
        return low

    return Plan([], read)


@plans(169)
def last_ordered(task: Task) -> Plan:
    """When something was bought last."""
    words = next(str(value) for value in task.words.values()).split()
    number = next(n for n, name in facts.NAMES.items() if all(word.lower() in name.lower() for word in words))
    order = next(order for order, (_, _, lines) in facts.ORDERS.items() if number in dict(lines))
    steps = links("My Orders", f"View Order {order:09d}")

    def read(nodes: Sequence[Node]) -> str:
        found(nodes, "link", facts.NAMES[number])
        return texts(nodes, "Order Date:")[0]

    return Plan(steps, read)
