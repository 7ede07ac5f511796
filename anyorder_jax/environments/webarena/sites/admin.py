"""Admin: a stand-in for the administration of WebArena's shop; everything stands below /admin."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qs, urlencode

from anyorder_jax.environments.webarena.sites import admin_facts as facts
from anyorder_jax.environments.webarena.sites import invented
from anyorder_jax.environments.webarena.sites.markup import (
    Markup,
    button,
    choice,
    field,
    form,
    hidden,
    link,
    listing,
    page,
    sent_form,
    table,
    tag,
    tick,
)
from anyorder_jax.environments.webarena.sites.serving import (
    MissingError,
    Request,
    Response,
    Routes,
    Store,
    insert,
    one,
    redirect,
)

ROUTES = Routes()
ROOT = "/admin"
SET = 9
"""Number of the set of attributes that all products have."""
_TABLES = """
CREATE TABLE bought (id INTEGER PRIMARY KEY, address INTEGER, customer TEXT, status TEXT, street TEXT, more TEXT,
    city TEXT, region TEXT, postcode TEXT, country TEXT, carrier TEXT, tracking TEXT);
CREATE TABLE comment (bought INTEGER, text TEXT, is_notified INTEGER);
CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT, price REAL, quantity REAL, is_in_stock INTEGER DEFAULT 1,
    status INTEGER DEFAULT 1, about TEXT DEFAULT '', size TEXT, colour TEXT);
CREATE TABLE review (id INTEGER PRIMARY KEY, nickname TEXT, product TEXT, title TEXT, stars INTEGER, status INTEGER);
CREATE TABLE cms (id INTEGER PRIMARY KEY, title TEXT);
CREATE TABLE rule (name TEXT, place TEXT, action TEXT, amount TEXT);
"""
REVIEW_STATUS = {"1": "Approved", "2": "Pending", "3": "Not Approved"}


def seed(store: Store) -> None:
    store.executescript(_TABLES)
    for number, (address, customer, status) in facts.ORDERS.items():
        where = {
            "street": f"{number} Main Street",
            "more": "",
            "city": "Springfield",
            "region": "",
            "postcode": "12345",
        }
        about = {"address": address, "customer": customer, "status": status, "country": "US", "tracking": ""}
        insert(store, "bought", id=number, **about, **where)
    for number, (name, price, quantity) in facts.PRODUCTS.items():
        insert(store, "product", id=number, name=name, price=price, quantity=quantity)
    for number, (nickname, product, stars, status) in facts.REVIEWS.items():
        about = {"nickname": nickname, "product": product, "title": invented.title("admin review", number)}
        insert(store, "review", id=number, stars=stars, status=2 if status == "pending" else 1, **about)
    store.executemany("INSERT INTO cms VALUES (?, ?)", facts.PAGES.items())


def admin_page(title: str, *body: object) -> Markup:
    places = {
        "Dashboard": "/",
        "Orders": "/sales/order/",
        "Products": "/catalog/product/",
        "All Customers": "/customer/index/",
        "Reviews": "/review/product/",
        "Pages": "/cms/page/",
        "Themes": "/admin/system_design_theme/",
        "Reports": "/reports/",
        "Cart Price Rules": "/sales_rule/promo_quote/",
        "Catalog Price Rules": "/catalog_rule/promo_catalog/",
    }
    return page(title, [tag("nav", listing(link(text, ROOT + url) for text, url in places.items()))], *body)


@ROUTES("GET", "/admin", "/admin/admin")
def _show_dashboard(store: Store, request: Request) -> Markup:
    (number,) = one(store, "SELECT COUNT(*) FROM bought WHERE status = 'pending'")
    return admin_page("Dashboard", tag("p", f"{number} orders wait."))


def _grid(status: str) -> str:
    """What a list of orders asks for, as it is narrowed to a status."""
    asked = {"namespace": "sales_order_grid", "search": "", "filters[placeholder]": "true", "keywordUpdated": "false"}
    asked |= {"filters[status]": status} if status else {}
    asked |= {"paging[pageSize]": "20", "paging[current]": "1", "isAjax": "true"}
    return f"{ROOT}/mui/index/render/?{urlencode(asked)}"


@ROUTES("GET", "/admin/sales/order")
def _show_orders(store: Store, request: Request) -> Markup:
    """The filter does not leave the page: its button fills the list below."""
    accept = "text/html, */*; q=0.01"
    narrow = Markup(
        "const grid = document.getElementById('grid'), status = document.querySelector('[name=status]').value;"
        f"grid.innerHTML = ask('GET', grid.dataset['on' + status] , '', null, '{accept}').text;"
    )
    on = {f"data_on{status}": _grid(status) for status in ("", *facts.STATUSES)}
    filters = [
        choice("Status", "status", {"": "Any", **facts.STATUSES}),
        tag("button", "Apply Filters", type="button", onclick=narrow),
    ]
    return admin_page("Orders", *filters, tag("div", id="grid", data_load=_grid(""), data_accept=accept, **on))


@ROUTES("GET", "/admin/mui/index/render")
def _render_grid(store: Store, request: Request) -> Markup:
    status = request.query.get("filters[status]", "")
    rows = store.execute("SELECT * FROM bought WHERE ? IN ('', status) ORDER BY id DESC", (status,))
    shown = []
    for row in rows:
        url = f"{ROOT}/sales/order/view/order_id/{row['id']}/"
        view = tag("a", "View", href=url, aria_label=f"View {row['id']}")
        shown.append((f"{row['id']:09d}", row["customer"], facts.STATUSES[row["status"]], view))
    return table(("ID", "Bill-to Name", "Status", "Action"), shown)


@ROUTES("GET", "/admin/sales/order/view/order_id/{number}")
def _show_order(store: Store, request: Request, number: str) -> Markup:
    row = one(store, "SELECT * FROM bought WHERE id = ?", number)
    said = store.execute("SELECT * FROM comment WHERE bought = ?", (number,))
    cancel = form(f"{ROOT}/sales/order/cancel/order_id/{number}/", button("Cancel"))
    comment = sent_form(
        "POST",
        f"{ROOT}/sales/order/addComment/order_id/{number}?isAjax=true",
        field("Comment", "history[comment]", kind="area"),
        tick("Notify Customer by Email", "history[is_customer_notified]"),
        button("Submit Comment"),
        kind="form",
    )
    shown = ", ".join(row[key] for key in ("street", "more", "city", "region", "postcode") if row[key])
    ship = link("Ship", f"{ROOT}/admin/order_shipment/start/order_id/{number}/")
    return admin_page(
        f"#{row['id']:09d}",
        tag("p", f"Status: {facts.STATUSES[row['status']]}"),
        tag("p", f"Customer: {row['customer']}"),
        tag("p", f"Shipping Address: {shown}"),
        link("Edit", f"{ROOT}/sales/order/address/address_id/{row['address']}/"),
        cancel if row["status"] in ("pending", "processing") else None,
        ship if not row["tracking"] else tag("p", row["tracking"]),
        listing(f"{each['text']} (notified: {each['is_notified']})" for each in said),
        comment,
    )


@ROUTES("POST", "/admin/sales/order/cancel/order_id/{number}")
def _cancel_order(store: Store, request: Request, number: str) -> Response:
    store.execute(
        "UPDATE bought SET status = 'canceled' WHERE id = ? AND status IN ('pending', 'processing')", (number,)
    )
    return redirect(f"{ROOT}/sales/order/view/order_id/{number}/")


@ROUTES("POST", "/admin/sales/order/addComment/order_id/{number}")
def _add_comment(store: Store, request: Request, number: str) -> Response:
    is_notified = request.form.get("history[is_customer_notified]", "0")
    store.execute("INSERT INTO comment VALUES (?, ?, ?)", (number, request.form["history[comment]"], int(is_notified)))
    return Response(tag("p", "done"))


@ROUTES("GET", "/admin/sales/order/address/address_id/{number}")
def _show_address(store: Store, request: Request, number: str) -> Markup:
    row = one(store, "SELECT * FROM bought WHERE address = ?", number)
    fields = [
        field("Street Address", "street[0]", row["street"]),
        field("Street Address Line 2", "street[1]", row["more"]),
        choice("Country", "country_id", {"US": "United States"}, row["country"]),
        field("State/Province", "region", row["region"]),
        choice("State", "region_id", {"": "Choose"} | facts.REGIONS),
        field("City", "city", row["city"]),
        field("Zip/Postal Code", "postcode", row["postcode"]),
        button("Save Order Address"),
    ]
    return admin_page("Edit Order Address", form(f"{ROOT}/sales/order/addressSave/address_id/{number}/", *fields))


@ROUTES("POST", "/admin/sales/order/addressSave/address_id/{number}")
def _save_address(store: Store, request: Request, number: str) -> Response:
    names = ("street[0]", "street[1]", "city", "region", "postcode", "country_id")
    query = "UPDATE bought SET street = ?, more = ?, city = ?, region = ?, postcode = ?, country = ? WHERE address = ?"
    store.execute(query, (*(request.form[name] for name in names), number))
    row = one(store, "SELECT id FROM bought WHERE address = ?", number)
    return redirect(f"{ROOT}/sales/order/view/order_id/{row['id']}/")


@ROUTES(
    "GET", "/admin/admin/order_shipment/start/order_id/{number}", "/admin/admin/order_shipment/new/order_id/{number}"
)
def _show_shipment(store: Store, request: Request, number: str) -> Markup:
    fields = [
        choice("Carrier", "tracking[1][carrier_code]", facts.CARRIERS),
        hidden("tracking[1][title]", ""),
        field("Number", "tracking[1][number]"),
        button("Submit Shipment"),
    ]
    return admin_page("New Shipment", form(f"{ROOT}/admin/order_shipment/save/order_id/{number}/", *fields))


@ROUTES("POST", "/admin/admin/order_shipment/save/order_id/{number}")
def _save_shipment(store: Store, request: Request, number: str) -> Response:
    sent = (request.form["tracking[1][carrier_code]"], request.form["tracking[1][number]"], number)
    store.execute("UPDATE bought SET carrier = ?, tracking = ? WHERE id = ?", sent)
    return redirect(f"{ROOT}/sales/order/view/order_id/{number}/")


@ROUTES("GET", "/admin/customer/index")
def _show_customers(store: Store, request: Request) -> Markup:
    rows = store.execute("SELECT DISTINCT customer FROM bought ORDER BY customer")
    return admin_page("Customers", listing(row["customer"] for row in rows))


@ROUTES("GET", "/admin/reports")
def _show_reports(store: Store, request: Request) -> Markup:
    return admin_page(
        "Reports", listing(link(f"{text} Report", f"{ROOT}/reports/{place}/") for place, text in facts.REPORTS.items())
    )


@ROUTES("GET", "/admin/reports/{kind}/{name}", "/admin/reports/{kind}/{name}/filter/{packed}")
def _show_report(store: Store, request: Request, kind: str, name: str, packed: str = "") -> Markup:
    title = facts.REPORTS.get(f"{kind}/{name}")
    if title is None:
        raise MissingError(f"there is no report {name}")
    asked: dict[str, list[str]] = {}
    if packed:
        try:
            asked = parse_qs(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)).decode())
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("the report's filter cannot be read") from None
    begin, end = (asked.get(key, [""])[0] for key in ("from", "to"))
    fields = [
        choice("Date Used", "report_type", {"created_at_order": "Order Created", "updated_at_order": "Order Updated"}),
        choice("Period", "period_type", {"day": "Day", "month": "Month", "year": "Year"}),
        field("From", "from", begin),
        field("To", "to", end),
        button("Show Report"),
    ]
    shown = tag("p", f"{title} from {begin} to {end}: no records.") if packed else None
    return admin_page(
        f"{title} Report", form(f"{ROOT}/reports/{kind}/{name}/filter/", *fields, method="get", data_packed="1"), shown
    )


@ROUTES("GET", "/admin/admin/system_design_theme")
def _show_themes(store: Store, request: Request) -> Markup:
    links = [link(name, f"{ROOT}/admin/system_design_theme/edit/id/{number}") for number, name in facts.THEMES.items()]
    return admin_page("Themes", listing(links))


@ROUTES("GET", "/admin/admin/system_design_theme/edit/id/{number}")
def _show_theme(store: Store, request: Request, number: str) -> Markup:
    if not number.isdecimal() or int(number) not in facts.THEMES:
        raise MissingError("there is no such theme")
    return admin_page(facts.THEMES[int(number)], tag("p", "Theme Path: frontend"))


@ROUTES("GET", "/admin/cms/page")
def _show_cms(store: Store, request: Request) -> Markup:
    rows = store.execute("SELECT * FROM cms ORDER BY id")
    return admin_page(
        "Pages", listing(link(f"Edit {row['title']}", f"{ROOT}/cms/page/edit/page_id/{row['id']}/") for row in rows)
    )


@ROUTES("GET", "/admin/cms/page/edit/page_id/{number}")
def _show_cms_page(store: Store, request: Request, number: str) -> Markup:
    row = one(store, "SELECT * FROM cms WHERE id = ?", number)
    fields = [
        hidden("page_id", row["id"]),
        hidden("store_id[0]", "0"),
        hidden("is_active", "1"),
        field("Page Title", "title", row["title"], required=True),
        button("Save"),
    ]
    return admin_page(row["title"], form(f"{ROOT}/cms/page/save/back/edit", *fields))


@ROUTES("POST", "/admin/cms/page/save/back/edit")
def _save_cms_page(store: Store, request: Request) -> Response:
    store.execute("UPDATE cms SET title = ? WHERE id = ?", (request.form["title"], request.form["page_id"]))
    return redirect(f"{ROOT}/cms/page/edit/page_id/{request.form['page_id']}/")
