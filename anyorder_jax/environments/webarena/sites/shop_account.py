"""Shop, the customer's own pages: orders, wish list, cart, address, letter; they are signed in as Emma Lopez."""

from __future__ import annotations

import json
import sqlite3
from datetime import date
from urllib.parse import quote

from anyorder_jax.environments.webarena.sites import shop_facts as facts
from anyorder_jax.environments.webarena.sites.markup import (
    Markup,
    button,
    choice,
    field,
    form,
    joined,
    link,
    listing,
    table,
    tag,
)
from anyorder_jax.environments.webarena.sites.serving import Request, Response, Site, Store, one, redirect
from anyorder_jax.environments.webarena.sites.shop import ROUTES, address_of, seed, shop_page

_COUNTRIES = {"US": "United States", "CA": "Canada"}


def site() -> Site:
    return Site("shopping", ROUTES, seed)


def _number(order: sqlite3.Row) -> str:
    return f"{order['id']:09d}"


def _total(store: Store, order: sqlite3.Row) -> float:
    (total,) = one(store, "SELECT SUM(price) FROM line WHERE bought = ?", order["id"])
    return float(total + order["shipping"])


@ROUTES("GET", "/customer/account")
def _show_account(store: Store, request: Request) -> Markup:
    return shop_page("My Account", tag("p", f"{facts.FIRST_NAME} {facts.LAST_NAME}"), tag("p", facts.EMAIL))


@ROUTES("GET", "/sales/order/history")
def _show_orders(store: Store, request: Request) -> Markup:
    rows = []
    for order in store.execute("SELECT * FROM bought ORDER BY day DESC, id DESC").fetchall():
        day = date.fromisoformat(order["day"])
        view = tag(
            "a",
            "View Order",
            href=f"/sales/order/view/order_id/{order['id']}/",
            aria_label=f"View Order {_number(order)}",
        )
        rows.append(
            (_number(order), f"{day.month}/{day.day}/{day:%y}", f"${_total(store, order):.2f}", order["status"], view)
        )
    return shop_page("My Orders", table(("Order #", "Date", "Order Total", "Status", "Action"), rows))


@ROUTES("GET", "/sales/order/view/order_id/{number}")
def _show_order(store: Store, request: Request, number: str) -> Markup:
    order = one(store, "SELECT * FROM bought WHERE id = ?", number)
    query = "SELECT product.*, line.price AS paid FROM line JOIN product ON product.id = line.product WHERE bought = ?"
    lines = [(link(row["name"], address_of(row)), f"${row['paid']:.2f}") for row in store.execute(query, (number,))]
    street, city, region, postcode, country = facts.BILLING
    return shop_page(
        f"Order # {_number(order)}",
        tag("p", f"Status: {order['status']}"),
        tag("p", f"Order Date: {date.fromisoformat(order['day']):%B %-d, %Y}"),
        table(("Product Name", "Price"), lines),
        tag("p", f"Shipping & Handling: ${order['shipping']:.2f}"),
        tag("p", f"Grand Total: ${_total(store, order):.2f}"),
        tag("p", "Shipping Method: Flat Rate - Fixed"),
        tag("p", f"Billing Address: {street}, {city}, {region}, {postcode}, {country}"),
    )


@ROUTES("GET", "/wishlist")
def _show_wishes(store: Store, request: Request) -> Markup:
    rows = store.execute("SELECT product.* FROM wish JOIN product ON product.id = wish.product ORDER BY wish.rowid")
    return shop_page("My Wish List", listing(link(row["name"], address_of(row)) for row in rows))


@ROUTES("POST", "/wishlist/index/add")
def _add_wish(store: Store, request: Request) -> Response:
    product = one(store, "SELECT * FROM product WHERE id = ?", request.form["product"])
    store.execute("INSERT INTO wish VALUES (?)", (product["id"],))
    text = f"{product['name']} has been added to your Wish List. Click here to continue shopping."
    told = quote(json.dumps([{"type": "success", "text": text}]))
    return redirect("/wishlist/", ("Set-Cookie", f"mage-messages={told}; Path=/; Max-Age=60"))


@ROUTES("GET", "/checkout/cart")
def _show_cart(store: Store, request: Request) -> Markup:
    query = "SELECT product.*, cart.quantity FROM cart JOIN product ON product.id = cart.product ORDER BY cart.rowid"
    rows = [
        (link(row["name"], address_of(row)), row["quantity"], f"${row['price']:.2f}") for row in store.execute(query)
    ]
    return shop_page("Shopping Cart", table(("Item", "Qty", "Price"), rows))


@ROUTES("POST", "/checkout/cart/add/uenc/{packed}/product/{number}")
def _add_to_cart(store: Store, request: Request, packed: str, number: str) -> Response:
    """As the shop's own script does it answers with the page, not with another address."""
    quantity = int(request.form["qty"])
    if not 1 <= quantity <= 10_000:
        raise ValueError(f"expected a quantity from 1 to 10000, got {quantity}")
    product = one(store, "SELECT * FROM product WHERE id = ?", number)
    store.execute("INSERT INTO cart VALUES (?, ?)", (product["id"], quantity))
    return Response(shop_page("Added to your cart", tag("p", f"You added {product['name']} to your shopping cart.")))


@ROUTES("GET", "/customer/address")
def _show_addresses(store: Store, request: Request) -> Markup:
    row = one(store, "SELECT * FROM address")
    shown = ", ".join(str(row[key]) for key in ("street", "more", "city", "region", "postcode") if row[key])
    return shop_page(
        "Address Book", tag("p", shown), link("Change Billing Address", f"/customer/address/edit/id/{row['id']}/")
    )


@ROUTES("GET", "/customer/address/edit/id/{number}")
def _show_address(store: Store, request: Request, number: str) -> Markup:
    row = one(store, "SELECT * FROM address WHERE id = ?", number)
    fields = [
        field("First Name", "firstname", row["first"]),
        field("Last Name", "lastname", row["last"]),
        field("Street Address", "street[0]", row["street"]),
        field("Street Address: Line 2", "street[1]", row["more"]),
        field("City", "city", row["city"]),
        field("State/Province", "region", row["region"]),
        field("Zip/Postal Code", "postcode", row["postcode"]),
        choice("Country", "country_id", _COUNTRIES, row["country"]),
    ]
    return shop_page("Edit Address", form(f"/customer/address/formPost/id/{number}/", *fields, button("Save Address")))


@ROUTES("POST", "/customer/address/formPost/id/{number}")
def _save_address(store: Store, request: Request, number: str) -> Response:
    names = ("firstname", "lastname", "street[0]", "street[1]", "city", "region", "postcode", "country_id")
    query = (
        "UPDATE address SET first = ?, last = ?, street = ?, more = ?, city = ?, region = ?, postcode = ?, country = ?"
    )
    store.execute(f"{query} WHERE id = ?", (*(request.form[name] for name in names), number))
    return redirect("/customer/address/")


@ROUTES("POST", "/newsletter/subscriber/new")
def _subscribe(store: Store, request: Request) -> Response:
    store.execute("INSERT OR IGNORE INTO subscriber VALUES (?)", (request.form["email"],))
    return redirect("/newsletter/manage/")


@ROUTES("GET", "/newsletter/manage")
def _show_letter(store: Store, request: Request) -> Markup:
    rows = store.execute("SELECT email FROM subscriber")
    return shop_page("Newsletter", listing(f"{row['email']} is subscribed" for row in rows))


@ROUTES("GET", "/contact")
def _show_contact(store: Store, request: Request) -> Markup:
    name = f"{facts.FIRST_NAME} {facts.LAST_NAME}"
    fields = [
        field("Name", "name", name),
        field("Email", "email", facts.EMAIL),
        field("What's on your mind?", "comment", kind="area"),
    ]
    return shop_page("Contact Us", form("/contact/index/post", *fields, button("Submit")))


@ROUTES("POST", "/contact/index/post")
def _send_contact(store: Store, request: Request) -> Markup:
    return shop_page("Contact Us", joined([tag("p", "Thanks for contacting us.")]))
