"""Oracles of the shop's administration."""

from __future__ import annotations

from datetime import datetime

from anyorder_jax.environments.webarena.oracles.registry import plans
from anyorder_jax.environments.webarena.oracles.steps import Step, Task, click, fill, links, select
from anyorder_jax.environments.webarena.sites import admin_facts as facts
from anyorder_jax.environments.webarena.sites.admin_goods import SHOWN


def _number(path: str, after: str) -> int:
    """Of what an address is about: the part behind a word."""
    parts = path.split("/")
    return int(parts[parts.index(after) + 1])


@plans(253)
def orders_with_status(task: Task) -> list[Step]:
    status = facts.STATUSES[task.asked()["filters[status]"]]
    return [*links("Orders"), select("Status", status), click("button", "Apply Filters")]


@plans(255)
def customers(task: Task) -> list[Step]:
    return links("All Customers")


@plans(266)
def theme(task: Task) -> list[Step]:
    return links("Themes", facts.THEMES[_number(task.path(), "id")])


@plans(268, 271)
def report(task: Task) -> list[Step]:
    name = facts.REPORTS["/".join(task.path().split("/")[2:4])]
    days = [datetime.strptime(task.asked()[key], "%m/%d/%Y") for key in ("from", "to")]
    fields = [fill(label, f"{day:%m/%d/%Y}") for label, day in zip(("From", "To"), days, strict=True)]
    return [*links("Reports", f"{name} Report"), *fields, click("button", "Show Report")]


def _order(number: int) -> list[Step]:
    return links("Orders", f"View {number}")


@plans(257)
def cancel(task: Task) -> list[Step]:
    return [*_order(_number(task.path(), "order_id")), click("button", "Cancel")]


@plans(240)
def order_address(task: Task) -> list[Step]:
    sent, address = task.sent(), _number(task.path(), "address_id")
    number = next(number for number, (one, _, _) in facts.ORDERS.items() if one == address)
    labels = {
        "street[0]": "Street Address",
        "street[1]": "Street Address Line 2",
        "region": "State/Province",
        "city": "City",
        "postcode": "Zip/Postal Code",
    }
    fields = [fill(label, sent[key]) for key, label in labels.items() if key in sent]
    state = select("State", facts.REGIONS[sent["region_id"]])
    return [*_order(number), *links("Edit"), *fields, state, click("button", "Save Order Address")]


@plans(280)
def comment(task: Task) -> list[Step] | None:
    if not task.events:
        return None
    text = fill("Comment", task.sent()["history[comment]"])
    notify = click("checkbox", "Notify Customer by Email")
    return [*_order(_number(task.path(), "order_id")), text, notify, click("button", "Submit Comment")]


@plans(284)
def tracking(task: Task) -> list[Step]:
    sent = task.sent()
    carrier = select("Carrier", facts.CARRIERS[sent["tracking[1][carrier_code]"]])
    there = [*_order(_number(task.path(), "order_id")), *links("Ship")]
    return [*there, carrier, fill("Number", sent["tracking[1][number]"]), click("button", "Submit Shipment")]


@plans(275)
def cms(task: Task) -> list[Step]:
    title = facts.PAGES[int(task.sent()["page_id"])]
    return [*links("Pages", f"Edit {title}"), fill("Page Title", task.sent()["title"]), click("button", "Save")]


_SAVED = {
    "product[price]": "Price",
    "product[quantity_and_stock_status][qty]": "Quantity",
    "product[short_description]": "Short Description",
}
_CHOSEN = {
    "product[status]": ("Enable Product", {"1": "Enabled", "2": "Disabled"}),
    "product[quantity_and_stock_status][is_in_stock]": ("Stock Status", {"1": "In Stock", "0": "Out of Stock"}),
    "product[size]": ("Size", facts.SIZES),
    "product[color]": ("Color", facts.COLOURS),
}


def _fields(task: Task, event: int) -> list[Step]:
    steps: list[Step] = []
    for key, value in task.sent(event).items():
        if key in _SAVED:
            steps.append(fill(_SAVED[key], f"{value:.2f}" if isinstance(value, float) else str(value)))
        elif key in _CHOSEN:
            label, options = _CHOSEN[key]
            steps.append(select(label, options[value]))
    return steps


def _to_product(number: int) -> list[Step]:
    """By the list, or by a search where the list's first page does not have it."""
    name = facts.PRODUCTS[number][0]
    is_near = number in sorted(facts.PRODUCTS)[:SHOWN]
    search = [] if is_near else [fill("Search by keyword", name), click("button", "Search")]
    return [*links("Products"), *search, *links(f"Edit {name}")]


@plans(241, 242, 247, 251, 287, 742)
def products(task: Task) -> list[Step]:
    """A page of each, found by its name."""
    steps: list[Step] = []
    for event in range(len(task.events)):
        number = int(task.path(event).split("/id/")[1].split("/")[0])
        steps += [*_to_product(number), *_fields(task, event), click("button", "Save")]
    return steps


@plans(256)
def new_product(task: Task) -> list[Step]:
    name = fill("Product Name", task.sent()["product[name]"])
    return [*links("Products", "Add Product"), name, *_fields(task, 0), click("button", "Save")]


@plans(243)
def approvals(task: Task) -> list[Step]:
    steps: list[Step] = []
    for event in range(len(task.events)):
        number = _number(task.path(event), "id")
        steps += [*links("Reviews", f"Edit {number}"), select("Status", "Approved"), click("button", "Save Review")]
    return steps


@plans(246)
def deletions(task: Task) -> list[Step] | None:
    numbers = [_number(task.path(event), "id") for event in range(len(task.events))]
    if not numbers or not set(numbers) <= set(facts.REVIEWS):
        return None  # a review that is not there
    return [
        step for number in numbers for step in (*links("Reviews", f"Edit {number}"), click("button", "Delete Review"))
    ]


@plans(258)
def rule(task: Task) -> list[Step] | None:
    sent = task.sent()
    if "website_ids" in sent:
        return None  # the scorer wants lists, which no form sends
    menu = "Catalog Price Rules" if "catalog_rule" in task.path() else "Cart Price Rules"
    actions = {"by_percent": "Percent of product price discount"}
    how = actions.get(sent.get("simple_action", ""), "Fixed amount discount for whole cart")
    return [
        *links(menu, "Add New Rule"),
        fill("Rule Name", sent["name"]),
        select("Customer Groups", "General"),
        select("Apply", how),
        fill("Discount Amount", str(sent["discount_amount"])),
        click("button", "Save"),
    ]
