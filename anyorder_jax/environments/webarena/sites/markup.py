"""Markup: pages of the stand-in sites, written from Python; all text is escaped.

    tag("a", "Posts & more", href="/posts")   ->   <a href="/posts">Posts &amp; more</a>

A form is sent by the browser itself; one that a site's own script sends (`sent_form`, `sent_button`) says how in
`data-` attributes, and SCRIPT sends it and waits for the answer: what follows never depends on the machine's speed.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCRIPT = """
const place = (body, name, value) => {
  const path = name.split('.'), last = path.pop();
  let here = body;
  path.forEach((part, i) => {
    here = here[part] = here[part] || (/^[0-9]+$/.test(path[i + 1] ?? last) ? [] : {});  // numbers are places in lists
  });
  here[last] = value;
};
const ask = (method, url, kind, text, accept) => {
  const request = new XMLHttpRequest();
  request.open(method, url, false);  // it waits: what follows does not depend on how fast the machine is
  if (kind) request.setRequestHeader('Content-Type', kind);
  request.setRequestHeader('Accept', accept || 'application/json');
  try { request.send(text); } catch (error) { return {status: 0, text: String(error)}; }
  return {status: request.status, text: request.responseText};
};
const send = form => {
  const {method, url, kind, then} = form.dataset, fields = [...form.elements].filter(
    field => field.name && !field.disabled && (field.type !== 'checkbox' || field.checked || field.dataset.off));
  const read = field => {
    if (field.multiple) return [...field.selectedOptions].map(option => option.value).join(',');
    const value = field.type === 'checkbox' && !field.checked ? field.dataset.off : field.value;
    return field.dataset.json ? JSON.parse(value) : value;
  };
  let text = '';
  if (kind === 'json') {
    const body = {};
    for (const field of fields) place(body, field.name, read(field));
    text = JSON.stringify(body);
  } else {
    text = new URLSearchParams(fields.map(field => [field.name, read(field)])).toString();
  }
  const type = kind === 'json' ? 'application/json' : 'application/x-www-form-urlencoded';
  const answer = ask(method, url, type, text);
  const box = document.getElementById('answer');
  if (answer.status >= 400 || !answer.status) { box.textContent = `Not done: ${answer.text.slice(0, 300)}`; return; }
  if (then) { location.assign(then); return; }
  const again = new DOMParser().parseFromString(ask('GET', location.href, '', null, '*/*').text, 'text/html');
  document.querySelector('main').replaceWith(again.querySelector('main'));  // the page as it is now, without leaving it
  load();
};
document.addEventListener('submit', event => {
  const form = event.target;
  if (form.dataset.url) { event.preventDefault(); send(form); return; }
  if (form.method !== 'get') return;
  if (form.dataset.range) {  // two numbers make one field
    const [from, to] = form.querySelectorAll('[data-end]');
    form.elements[form.dataset.range].value = `${from.value || 0}-${to.value}`;
  }
  if (form.dataset.packed) {  // as one part of the path
    event.preventDefault();
    const text = new URLSearchParams([...new FormData(form)]).toString();
    location.assign(`${form.getAttribute('action')}${btoa(text).replace(/\\+/g, '-').replace(/\\//g, '_')}/`);
    return;
  }
  for (const field of form.elements) if (!field.value) field.disabled = true;  // nothing is asked of what is empty
});
const load = () => {
  for (const box of document.querySelectorAll('[data-load]')) {
    const {load, method, kind, body} = box.dataset;
    const answer = ask(method || 'GET', load, kind, body || null, box.dataset.accept);
    if (box.dataset.accept) box.innerHTML = answer.text;
  }
};
document.addEventListener('DOMContentLoaded', load);
"""
"""What every page runs. `data-load` of an element: what the page asks for when it opens."""


class Markup(str):
    """HTML: it is not escaped again."""


def escaped(value: object) -> str:
    """HTML of a text, or of markup as it is."""
    return str(value) if isinstance(value, Markup) else html.escape(str(value))


def tag(name: str, /, *inside: object, **attributes: object) -> Markup:
    """An element. Attributes: `_` for `-` (at the end: dropped); True stands alone, None and False are left out."""
    shown = ""
    for key, value in attributes.items():
        if value is True:
            shown += f" {key.rstrip('_').replace('_', '-')}"
        elif value is not None and value is not False:
            shown += f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
    if name in ("input", "meta"):
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{joined(inside)}</{name}>")


def joined(parts: Iterable[object]) -> Markup:
    """Parts one after the other; None is left out."""
    return Markup("".join(escaped(part) for part in parts if part is not None))


def link(text: object, url: str) -> Markup:
    return tag("a", text, href=url)


def listing(items: Iterable[object]) -> Markup:
    return tag("ul", *(tag("li", item) for item in items))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("table", tag("thead", tag("tr", *(tag("th", name) for name in head))), tag("tbody", *body))


def field(label: str, name: str, value: object = "", **attributes: object) -> Markup:
    """A labelled field. `kind`: of the input, else text; "area" is one of several lines."""
    kind = attributes.pop("kind", "text")
    if kind == "area":
        box = tag("textarea", "\n", value, name=name, rows=6, **attributes)
    else:
        box = tag("input", type=kind, name=name, value=value, **attributes)
    return tag("p", tag("label", f"{label} ", box))


def tick(label: str, name: str, value: object = "1", **attributes: object) -> Markup:
    """A box to tick; `type` may be "radio"."""
    return tag(
        "p", tag("label", tag("input", **{"type": "checkbox", **attributes}, name=name, value=value), f" {label}")
    )


def hidden(name: str, value: object, **attributes: object) -> Markup:
    return tag("input", type="hidden", name=name, value=value, **attributes)


def choice(label: str, name: str, options: Mapping[str, str], chosen: object = "", **attributes: object) -> Markup:
    """A list to choose from.

    Args:
      label: what agents find it by.
      name: of the field that is sent.
      options: value -> what is shown.
      chosen: the value that is chosen at first.
      attributes: of the element.
    """
    shown = [tag("option", text, value=value, selected=value == str(chosen)) for value, text in options.items()]
    return tag("p", tag("label", f"{label} ", tag("select", *shown, name=name, **attributes)))


def button(text: str, **attributes: object) -> Markup:
    return tag("button", text, type="submit", **attributes)


def form(action: str, *inside: object, **attributes: object) -> Markup:
    """A form that the browser sends, by POST where no `method` is named."""
    return tag("form", *inside, **{"method": "post", **attributes}, action=action)


def sent_form(method: str, url: str, *inside: object, kind: str = "json", then: str | None = None) -> Markup:
    """A form that the page's script sends.

    Args:
      method, url: how it is sent, and where to.
      inside: its fields and buttons.
      kind: of the body, "json" (names with dots are nested; `data_json` fields hold JSON) or "form".
      then: the page to open then; else this one again.
    """
    return tag("form", *inside, data_method=method, data_url=url, data_kind=kind, data_then=then, action="#")


def sent_button(text: str, method: str, url: str, fields: Mapping[str, Any], kind: str = "json") -> Markup:
    """A button that the page's script answers to.

    Args:
      text: what is on it.
      method, url: how something is sent, and where to.
      fields: what is sent.
      kind: of the body, as `sent_form`'s.
    """
    boxes = [hidden(name, json.dumps(value), data_json="1") for name, value in fields.items()]
    return sent_form(method, url, *boxes, button(text), kind=kind)


def page(title: str, head: Iterable[object], *body: object) -> Markup:
    """A whole page. head: what stands above on all pages of a site."""
    content = tag("main", tag("h1", title), tag("p", id="answer", role="status"), *body)
    top = tag("head", tag("meta", charset="utf-8"), tag("title", title), tag("script", Markup(SCRIPT)))
    return Markup("<!doctype html>" + tag("html", top, tag("body", tag("header", *head), content), lang="en"))
