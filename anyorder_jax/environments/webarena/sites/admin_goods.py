"""Admin, what is sold: products, their reviews, and rules for prices."""

from __future__ import annotations

import sqlite3
from urllib.parse import urlencode

from anyorder_jax.environments.webarena.sites import admin_facts as facts
from anyorder_jax.environments.webarena.sites.admin import REVIEW_STATUS, ROOT, ROUTES, SET, admin_page, seed
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
    table,
    tag,
)
from anyorder_jax.environments.webarena.sites.serving import MissingError, Request, Response, Site, Store, one, redirect

_ENABLED = {"1": "Enabled", "2": "Disabled"}
SHOWN = 20
"""Products on a page."""
_STOCK = {"1": "In Stock", "0": "Out of Stock"}


def site() -> Site:
    return Site("shopping_admin", ROUTES, seed)


def _kind(row: sqlite3.Row) -> str:
    """A product that stands for several sizes and colours, or one of them."""
    return "simple" if "-" in row["name"].replace("Cross-Fit", "").replace("Crew-neck", "") else "configurable"


@ROUTES("GET", "/admin/catalog/product")
def _show_products(store: Store, request: Request) -> Markup:
    text, page = request.query.get("search", ""), int(request.query.get("page") or 1)
    query = "SELECT * FROM product WHERE name LIKE ? ORDER BY id LIMIT ? OFFSET ?"
    rows = store.execute(query, (f"%{text}%", SHOWN + 1, SHOWN * (page - 1))).fetchall()
    path = f"{ROOT}/catalog/product/"
    search = form(path, field("Search by keyword", "search", text), button("Search"), method="get")
    shown = [
        (
            row["id"],
            row["name"],
            f"${row['price']:.2f}",
            row["quantity"],
            link(f"Edit {row['name']}", f"{path}edit/id/{row['id']}/"),
        )
        for row in rows[:SHOWN]
    ]
    head = ("ID", "Name", "Price", "Quantity", "Action")
    add = link("Add Product", f"{path}new/set/{SET}/type/simple/")
    more = f"{path}?{urlencode({'search': text, 'page': page + 1})}"
    return admin_page(
        "Products", search, add, table(head, shown), link("Next page", more) if len(rows) > SHOWN else None
    )


def _fields(name: str = "", price: float = 0.0, quantity: float = 0.0) -> list[Markup]:
    return [
        field("Product Name", "product[name]", name, required=True),
        field("Price", "product[price]", f"{price:.2f}"),
        field("Quantity", "product[quantity_and_stock_status][qty]", f"{quantity:g}"),
    ]


@ROUTES("GET", "/admin/catalog/product/edit/id/{number}")
def _show_product(store: Store, request: Request, number: str) -> Markup:
    row = one(store, "SELECT * FROM product WHERE id = ?", number)
    fields = [
        choice("Enable Product", "product[status]", _ENABLED, row["status"]),
        *_fields(row["name"], row["price"], row["quantity"]),
        choice("Stock Status", "product[quantity_and_stock_status][is_in_stock]", _STOCK, row["is_in_stock"]),
        field("Short Description", "product[short_description]", row["about"], kind="area"),
        button("Save"),
    ]
    action = f"{ROOT}/catalog/product/save/id/{number}/type/{_kind(row)}/store/0/set/{SET}/back/edit"
    return admin_page(row["name"], form(action, *fields))


@ROUTES("POST", "/admin/catalog/product/save/id/{number}/type/{kind}/store/0/set/{group}/back/edit")
def _save_product(store: Store, request: Request, number: str, kind: str, group: str) -> Response:
    sent = request.form
    stock = "product[quantity_and_stock_status]"
    values = (
        sent["product[name]"],
        float(sent["product[price]"]),
        float(sent[f"{stock}[qty]"]),
        int(sent[f"{stock}[is_in_stock]"]),
        int(sent["product[status]"]),
        sent["product[short_description]"],
        number,
    )
    query = "UPDATE product SET name = ?, price = ?, quantity = ?, is_in_stock = ?, status = ?, about = ? WHERE id = ?"
    store.execute(query, values)
    return redirect(f"{ROOT}/catalog/product/edit/id/{number}/")


@ROUTES("GET", "/admin/catalog/product/new/set/{group}/type/simple")
def _show_new_product(store: Store, request: Request, group: str) -> Markup:
    fields = [
        choice("Enable Product", "product[status]", _ENABLED),
        *_fields(),
        choice("Stock Status", "product[quantity_and_stock_status][is_in_stock]", _STOCK),
        choice("Size", "product[size]", {"": "Choose"} | facts.SIZES),
        choice("Color", "product[color]", {"": "Choose"} | facts.COLOURS),
        button("Save"),
    ]
    return admin_page(
        "New Product", form(f"{ROOT}/catalog/product/save/type/simple/store/0/set/{group}/back/edit", *fields)
    )


@ROUTES("POST", "/admin/catalog/product/save/type/simple/store/0/set/{group}/back/edit")
def _create_product(store: Store, request: Request, group: str) -> Response:
    sent = request.form
    row = (
        sent["product[name]"],
        float(sent["product[price]"]),
        float(sent["product[quantity_and_stock_status][qty]"]),
        int(sent["product[status]"]),
        sent["product[size]"],
        sent["product[color]"],
    )
    query = "INSERT INTO product (name, price, quantity, status, size, colour) VALUES (?, ?, ?, ?, ?, ?)"
    return redirect(f"{ROOT}/catalog/product/edit/id/{store.execute(query, row).lastrowid}/")


@ROUTES("GET", "/admin/review/product")
def _show_reviews(store: Store, request: Request) -> Markup:
    rows = [
        (
            row["id"],
            row["title"],
            row["nickname"],
            f"{row['stars']} stars",
            row["product"],
            REVIEW_STATUS[str(row["status"])],
            link(f"Edit {row['id']}", f"{ROOT}/review/product/edit/id/{row['id']}/"),
        )
        for row in store.execute("SELECT * FROM review ORDER BY id DESC")
    ]
    return admin_page("Reviews", table(("ID", "Title", "Nickname", "Rating", "Product", "Status", "Action"), rows))


@ROUTES("GET", "/admin/review/product/edit/id/{number}")
def _show_review(store: Store, request: Request, number: str) -> Markup:
    row = one(store, "SELECT * FROM review WHERE id = ?", number)
    fields = [choice("Status", "status_id", REVIEW_STATUS, row["status"]), button("Save Review")]
    delete = form(f"{ROOT}/review/product/delete/id/{number}/", button("Delete Review"))
    return admin_page(
        f"Review {number}", tag("p", row["title"]), form(f"{ROOT}/review/product/save/id/{number}", *fields), delete
    )


@ROUTES("POST", "/admin/review/product/save/id/{number}")
def _save_review(store: Store, request: Request, number: str) -> Response:
    store.execute("UPDATE review SET status = ? WHERE id = ?", (int(request.form["status_id"]), number))
    return redirect(f"{ROOT}/review/product/")


@ROUTES("POST", "/admin/review/product/delete/id/{number}")
def _delete_review(store: Store, request: Request, number: str) -> Response:
    store.execute("DELETE FROM review WHERE id = ?", (number,))
    return redirect(f"{ROOT}/review/product/")


_RULES = {"sales_rule/promo_quote": "Cart Price Rules", "catalog_rule/promo_catalog": "Catalog Price Rules"}
_ACTIONS = {
    "by_percent": "Percent of product price discount",
    "by_fixed": "Fixed amount discount",
    "cart_fixed": "Fixed amount discount for whole cart",
}
_COMBINE = "Magento\\SalesRule\\Model\\Rule\\Condition\\Product\\Combine"


def _rules(kind: str, name: str) -> str:
    if f"{kind}/{name}" not in _RULES:
        raise MissingError(f"there are no rules {name}")
    return f"{ROOT}/{kind}/{name}"


@ROUTES("GET", "/admin/{kind}/{name}")
def _show_rules(store: Store, request: Request, kind: str, name: str) -> Markup:
    path = _rules(kind, name)
    rows = store.execute("SELECT * FROM rule WHERE place = ?", (name,))
    shown = listing(f"{row['name']}: {row['action']} {row['amount']}" for row in rows)
    return admin_page(_RULES[f"{kind}/{name}"], link("Add New Rule", f"{path}/new/"), shown)


@ROUTES("GET", "/admin/{kind}/{name}/new")
def _show_new_rule(store: Store, request: Request, kind: str, name: str) -> Markup:
    path = _rules(kind, name)
    combine = [
        hidden(f"rule[actions][1][{key}]", value)
        for key, value in (("type", _COMBINE), ("aggregator", "all"), ("value", "1"))
    ]
    fields = [
        field("Rule Name", "name", required=True),
        hidden("is_active", "1"),
        hidden("coupon_type", "1"),
        choice("Websites", "website_ids[0]", {"1": "Main Website"}),
        choice(
            "Customer Groups",
            "customer_group_ids[0]",
            {"0": "NOT LOGGED IN", "1": "General", "2": "Wholesale", "3": "Retailer"},
        ),
        choice("Apply", "simple_action", _ACTIONS),
        field("Discount Amount", "discount_amount", "0"),
        joined(combine),
        button("Save"),
    ]
    return admin_page("New Rule", form(f"{path}/save" + ("/" if kind == "catalog_rule" else ""), *fields))


@ROUTES("POST", "/admin/{kind}/{name}/save")
def _save_rule(store: Store, request: Request, kind: str, name: str) -> Response:
    path, sent = _rules(kind, name), request.form
    store.execute(
        "INSERT INTO rule VALUES (?, ?, ?, ?)", (sent["name"], name, sent["simple_action"], sent["discount_amount"])
    )
    return redirect(f"{path}/")
