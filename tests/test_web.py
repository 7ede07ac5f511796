"""Web pages in a browser: every action, and what a page may do: no episode hangs, no browser stays."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anyorder_jax.environments.base import InvalidActionError
from anyorder_jax.environments.web import calls, chromium, tab
from anyorder_jax.environments.web.tree import page_text
from java_worlds import run_variables
from web_pages import needs_browser


def test_a_missing_browser_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROME_PATH", raising=False)
    with pytest.raises(RuntimeError, match=r"a world needs Chromium.*apt-get install chromium.*CHROME_PATH"):
        chromium.find("a world")
    monkeypatch.setenv("CHROME_PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="needs Chromium"):
        chromium.find("a world")


@pytest.fixture(scope="module")
def page():
    one = tab.Tab("a test")
    yield one
    one.close()


@pytest.fixture
def opened(page, tmp_path):
    """Opens a page with this body; gives the text's lines."""

    def open_one(body: str):
        (tmp_path / "page.html").write_text(f"<!doctype html><title>T</title><body>{body}", encoding="utf-8")
        page.open((tmp_path / "page.html").as_uri())
        return page_text(page.look()).split("\n")

    return open_one


def do(page, text):
    page.do(calls.parse(text))
    return page_text(page.look())


def bid_of(page, role, name=""):
    return next(node.bid for node in page.look() if (node.role, node.name) == (role, name))


@needs_browser
def test_every_kind_of_action_does_what_it_says(page, opened):
    said = "onclick=\"said.textContent='clicked'\"", "ondblclick=\"said.textContent='twice'\""
    lines = opened(
        "<input aria-label=name value=old><input type=checkbox aria-label=box><input type=date aria-label=day>"
        "<select aria-label=pick><option>A<option>B</select>"
        f"<p id=said></p><button {said[0]}>Go</button><button {said[1]}>Twice</button>"
    )
    assert lines[0] == "RootWebArea 'T', focused"
    name, box, pick = bid_of(page, "textbox", "name"), bid_of(page, "checkbox", "box"), bid_of(page, "combobox", "pick")
    assert "textbox 'name' value='new', focused" in do(page, f"fill('{name}', 'new')")
    assert "value='newer'" in do(page, "keyboard_type('er')")
    assert "value='newe'" in do(page, f"press('{name}', 'Backspace')")
    do(page, "keyboard_press('Control+a')"), do(page, "keyboard_press('Control+x')")
    assert "textbox 'name', focused" in page_text(page.look())
    assert "value='newenewe'" in [do(page, "keyboard_press('Control+v')") for _ in range(2)][1]
    assert "textbox 'name', focused" in do(page, f"clear('{name}')")
    assert "value='F'" in do(page, "keyboard_press('F')")
    assert "checked='true'" in do(page, f"check('{box}')") and "checked='true'" in do(page, f"check('{box}')")
    assert "checked='false'" in do(page, f"uncheck('{box}')")
    assert "combobox 'pick' value='B'" in do(page, f"select_option('{pick}', 'B')")
    assert "StaticText 'clicked'" in do(page, f"click('{bid_of(page, 'button', 'Go')}')")
    assert "StaticText 'twice'" in do(page, f"dblclick('{bid_of(page, 'button', 'Twice')}')")
    day = next(node.bid for node in page.look() if node.role == "Date")
    assert "2026" in do(page, f"fill('{day}', '2026-03-01')")
    for wrong, reason in (
        (f"fill('{day}', 'tomorrow')", "does not take"),
        (f"fill('{box}', 'x')", "no field for text but a checkbox"),
        (f"select_option('{pick}', 'C')", "has no option"),
        (f"check('{name}')", "no checkbox"),
        (f"select_option('{name}', 'C')", "no list of options"),
        ("click('9999')", "there is no element 9999"),
        ("go_back()", "no such page in the history"),
    ):
        with pytest.raises(InvalidActionError, match=reason):
            do(page, wrong)


@needs_browser
def test_no_way_leads_back_into_another_episode(page, opened):
    opened("<a href='page.html?second'>on</a>")
    do(page, f"click('{bid_of(page, 'link', 'on')}')")
    opened("<p>new</p>")
    with pytest.raises(InvalidActionError, match="no such page in the history"):
        do(page, "go_back()")


@needs_browser
def test_hosts_that_are_not_named_are_not_reached():
    with socket.create_server(("127.0.0.2", 0)) as server:
        address = f"http://127.0.0.2:{server.getsockname()[1]}/"
        for hosts, is_reached in (((), False), (("127.0.0.2",), True)):
            other = tab.Tab("a test", hosts)
            try:
                other.open("about:blank")
                other.run(f"void fetch({address!r}, {{mode: 'no-cors'}}).catch(() => null)")
                server.settimeout(2.0 if is_reached else 0.5)
                if is_reached:
                    server.accept()[0].close()
                else:
                    with pytest.raises(TimeoutError):
                        server.accept()
            finally:
                other.close()


@needs_browser
def test_what_cannot_be_clicked_is_said(page, opened):
    opened(
        "<button id=a>Covered</button><button style='display:none'>Hidden</button><button disabled>Off</button>"
        "<button onclick='this.remove()'>Once</button><div id=cover style='position:fixed;inset:0 0 90% 0'></div>"
        "<div style='height:3000px'></div><button onclick=\"document.title='low'\">Low</button>"
    )
    with pytest.raises(InvalidActionError, match="is covered by div#cover"):
        do(page, f"click('{bid_of(page, 'button', 'Covered')}')")
    page.run("cover.remove()")
    with pytest.raises(InvalidActionError, match="is disabled"):
        do(page, f"click('{bid_of(page, 'button', 'Off')}')")
    once = bid_of(page, "button", "Once")
    assert "Once" not in do(page, f"click('{once}')")
    with pytest.raises(InvalidActionError, match=f"element {once} is gone"):
        do(page, f"click('{once}')")
    assert "RootWebArea 'low'" in do(page, f"click('{bid_of(page, 'button', 'Low')}')")  # scrolled to


@needs_browser
def test_time_moves_with_actions_alone(page, opened):
    opened(
        "<p id=p>0</p><script>let n = 0; setInterval(() => p.textContent = ++n + ' ' + (Date.now() - t), 100);"
        "const t = Date.now(); setTimeout(() => document.title = 'late', 2500);"
        "const wait = ms => new Promise(then => setTimeout(then, ms));"
        "const write = () => { q.textContent = Date().slice(0, 24) + (new Date(0) instanceof Date) };"
        "(async () => { for (;;) { await wait(300); write(); } })();"
        "</script><p id=q></p>"
        "<iframe srcdoc=\"<p id=r>0</p><script>setTimeout(() => r.textContent = 'framed', 500)</script>\"></iframe>"
    )
    assert "StaticText '0'" in page_text(page.look())
    time.sleep(0.3)
    assert "StaticText '0'" in page_text(page.look())
    text = do(page, "noop()")
    assert "StaticText '10 1000'" in text and "12:00:00true'" in text
    assert page.run("frames[0].document.body.textContent").startswith("framed")
    assert "RootWebArea 'late'" in do(page, "noop(2000)") and "StaticText '30 3000'" in page_text(page.look())


@needs_browser
def test_a_dialog_is_answered_and_told(page, opened):
    opened("<button onclick=\"document.title = confirm('Sure?') && prompt('Who?', 'me')\">Ask</button>")
    text = do(page, f"click('{bid_of(page, 'button', 'Ask')}')")
    assert page.notices == ["dialog confirm 'Sure?', accepted", "dialog prompt 'Who?', accepted"]
    assert "Ask" in text


@needs_browser
def test_a_page_that_never_stops_asking_is_lost_in_time(page, opened, monkeypatch):
    monkeypatch.setattr(tab, "ACT_SECONDS", 1.0)
    opened("<button onclick='for (;;) alert(1)'>Ask</button>")
    begun = time.monotonic()
    with pytest.raises(tab.LostError, match="does not answer"):
        do(page, f"click('{bid_of(page, 'button', 'Ask')}')")
    assert time.monotonic() - begun < 60 and len(page.notices) == tab.MAX_NOTICES


@needs_browser
def test_a_page_that_replaces_itself_is_seen_again(page, opened):
    opened("<p>here</p><script>setTimeout(() => location.reload(), 300)</script>")
    assert "StaticText 'here'" in do(page, "noop()") and "StaticText 'here'" in do(page, "noop()")
    opened("<script>setTimeout(() => { location = 'page.html?second' }, 300); document.write(location.search)</script>")
    assert "StaticText '?second'" in do(page, "noop()")


@needs_browser
def test_a_page_that_never_loads_is_stopped_and_told(page, opened, monkeypatch):
    monkeypatch.setattr(tab, "LOAD_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        opened(f"<a href='{address}'>slow</a>")
        begun = time.monotonic()
        do(page, f"click('{bid_of(page, 'link', 'slow')}')")
        assert page.notices == ["the page did not load within 1 seconds, and was stopped"]
        assert time.monotonic() - begun < 60  # not for ever
    page.notices = []
    do(page, f"goto('{address}')")  # nobody listens any more
    assert "cannot be opened" in page.notices[0]


@needs_browser
def test_a_page_that_hangs_or_crashes_is_lost_and_the_next_one_opens(page, opened, monkeypatch):
    monkeypatch.setattr(tab, "ACT_SECONDS", 1.0)
    opened("<button onclick='for (;;);'>Loop</button>")
    with pytest.raises(tab.LostError, match="does not answer"):
        do(page, f"click('{bid_of(page, 'button', 'Loop')}')")
    monkeypatch.undo()
    assert opened("<p>well</p>")[1:]
    number = page._browser.send("Page.crash")
    with pytest.raises(tab.LostError, match="crashed"):
        page.look()
    assert number and opened("<p>well</p>")[1:]
    os.kill(page._browser._keeper.pid, signal.SIGKILL)  # the keeper itself
    with contextlib.suppress(tab.LostError):
        page.look()
    page.close()
    assert opened("<p>well</p>")[1:]


@needs_browser
def test_a_large_page_is_read_in_time_and_within_the_budget(page, opened):
    begun = time.monotonic()
    rows = "".join(f"<div><button>Buy {n}</button><p>{'about it ' * 220}{n}</p></div>" for n in range(1000))
    assert len(rows) > 2_000_000
    lines = opened(rows)
    assert time.monotonic() - begun < 300 and len(lines) > 2000
    text = page_text(page.look(), 12_000)
    assert len(text) <= 12_000 and "nodes left out" in text


@needs_browser
def test_a_browser_ends_with_the_process_that_started_it():
    script = (
        "import sys; from anyorder_jax.environments.web.tab import Tab;"
        "t = Tab('a test'); t.open('about:blank'); print(t._browser._keeper.pid, flush=True); sys.stdin.read()"
    )
    for stop in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=run_variables()
        )
        keeper = int(process.stdout.readline())
        tree = descendants(keeper)
        folder = next(a for a in arguments(tree[1]) if a.startswith("--user-data-dir=")).partition("=")[2]
        assert len(tree) > 3 and Path(folder).is_dir()
        process.send_signal(stop)
        process.communicate()
        deadline = time.monotonic() + 60
        while any(map(is_alive, tree)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_alive, tree)) and not Path(folder).exists()


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    below = [int(child) for one in children for child in one.read_text(encoding="ascii").split()]
    return [pid, *(found for child in below for found in descendants(child))]


def arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for is dead."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    return False
