"""The stand-in sites: they answer, keep what is sent, are put back at once, and oracles play on them in a browser."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from anyorder_jax.environments.web import calls
from anyorder_jax.environments.web.tab import LostError
from anyorder_jax.environments.web.tree import parse
from anyorder_jax.environments.webarena import package, sites
from anyorder_jax.environments.webarena.browser import SiteTab
from anyorder_jax.environments.webarena.oracles import OracleError, Plan, Task, plan_of, proof
from anyorder_jax.environments.webarena.oracles.steps import click, fill
from anyorder_jax.environments.webarena.sites import encyclopedia
from anyorder_jax.environments.webarena.world import MAX_STEPS
from java_worlds import run_variables
from web_pages import needs_browser
from webarena_package import needs_scorer

needs_kiwix = pytest.mark.skipif(bool(encyclopedia.missing()), reason=encyclopedia.missing())


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


@pytest.fixture(scope="module")
def served():
    with sites.started() as found:
        yield found


@pytest.fixture
def stand_ins(served):
    served.reset()
    return served


def ask(url, form=None, *, method=None, body=None):
    """Status, text and headers; redirections are not followed. form: fields; body: JSON."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    headers = {}
    if body is not None:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        answer = urllib.request.build_opener(_Stay).open(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.read().decode(), dict(answer.headers)


# -- servers ---------------------------------------------------------------------------------------


def test_each_site_has_an_address_of_this_machine(stand_ins):
    assert set(stand_ins.addresses) == set(sites.names()) and set(sites.names()) >= set(sites.MAKERS)
    assert set(stand_ins.addresses).isdisjoint(stand_ins.missing)
    for name, url in stand_ins.addresses.items():
        assert url.startswith("http://127.0.0.1:") and not url.endswith("/")
        if name in sites.MAKERS:
            status, text, _ = ask(url)
            assert status == 200 and text.startswith("<!doctype html>"), name


def test_a_site_is_gone_when_it_is_closed():
    with sites.MAKERS["reddit"]().started() as url:
        assert ask(url)[0] == 200
    with pytest.raises(urllib.error.URLError):
        ask(url)


def test_sites_end_with_their_process_however_it_ends():
    script = (
        "import time; from anyorder_jax.environments.webarena import sites\n"
        "with sites.started() as found: print(*found.addresses.values(), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, env=run_variables(), cwd=Path(__file__).parents[1], stdout=subprocess.PIPE
    ) as process:
        urls = process.stdout.readline().decode().split()
        assert len(urls) == len(sites.names()) and ask(urls[0])[0] == 200
        process.kill()
    end = time.monotonic() + 60
    while urls and time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError):
            ask(urls[-1])
            time.sleep(0.1)
            continue
        urls.pop()
    assert not urls, "still answers"


def test_a_bad_request_is_answered_with_a_sentence(stand_ins):
    forum = stand_ins.addresses["reddit"]
    assert ask(f"{forum}/f/nowhere")[0] == 404
    status, text, _ = ask(f"{forum}/%3Cb%3E")
    assert status == 404 and "/%3Cb%3E" in text
    assert "<b>" not in ask(f"{forum}/f/books/1/<b>")[1]
    status, text, _ = ask(f"{forum}/submit", {"submission[title]": "x"})
    assert status == 400 and "submission[forum]" in text
    assert ask(f"{forum}/sv/81371.json", {"choice": "7"})[0] == 400
    assert ask(f"{forum}/sv/81371.json", {"choice": "1", "pad": "x" * (1 << 20)})[0] == 400
    assert stand_ins.made["reddit"].failures == []


def test_what_is_sent_is_text_on_the_pages(stand_ins):
    forum = stand_ins.addresses["reddit"]
    fields = {
        "submission[title]": "<script>1</script>",
        "submission[body]": "",
        "submission[url]": "",
        "submission[forum]": "10037",
    }
    status, _, headers = ask(f"{forum}/submit", fields)
    assert status == 302
    assert "&lt;script&gt;1&lt;/script&gt;" in ask(forum + headers["Location"])[1]


def test_stores_are_put_back(stand_ins):
    forum, forge = stand_ins.addresses["reddit"], stand_ins.addresses["gitlab"]
    page = f"{forum}/user/MarvelsGrantMan136"
    before = ask(page)[1], ask(f"{forge}/byteblaze")[1]
    ask(f"{page}/edit_biography", {"user_biography[biography]": "I was here"})
    ask(f"{forge}/api/v4/user/status", method="PUT", body={"message": "Away", "availability": "busy"})
    assert "I was here" in ask(page)[1] and "Away" in ask(f"{forge}/byteblaze")[1]
    stand_ins.reset()
    assert (ask(page)[1], ask(f"{forge}/byteblaze")[1]) == before


def test_sites_are_the_same_wherever_they_are_made():
    with sites.MAKERS["reddit"]().started() as one, sites.MAKERS["reddit"]().started() as other:
        assert ask(f"{one}/f/books/top")[1] == ask(f"{other}/f/books/top")[1]


# -- what tasks ask for ----------------------------------------------------------------------------


def test_the_forum_keeps_votes_and_comments(stand_ins):
    forum = stand_ins.addresses["reddit"]
    status, text, headers = ask(f"{forum}/sv/81371.json", {"choice": "-1"})
    assert status == 200 and json.loads(text) == {"netScore": 8999} and "json" in headers["Content-Type"]
    assert "you downvoted" in ask(f"{forum}/f/books/top")[1]
    status, _, headers = ask(f"{forum}/f/books/59421/-/comment", {"reply_to_submission_59421[comment]": "well said"})
    assert status == 302 and "well said" in ask(forum + headers["Location"])[1]
    assert json.loads(ask(f"{forum}/f/books/subscribe.json", {})[1]) == {"subscribed": True}


def test_the_shop_keeps_wishes_and_says_so_in_a_cookie(stand_ins):
    shop = stand_ins.addresses["shopping"]
    status, _, headers = ask(f"{shop}/wishlist/index/add/", {"product": "91007"})
    told = urllib.parse.unquote(headers["Set-Cookie"].split(";")[0].partition("=")[2])
    assert status == 302 and json.loads(told)[0]["text"].startswith("Mint Toothpaste has been added to your Wish List")
    assert "Mint Toothpaste" in ask(f"{shop}/wishlist/")[1]
    cart = f"{shop}/checkout/cart/add/uenc/x/product/91007"
    assert ask(cart, {"qty": "2", "item": "91007"})[0] == 200 and ask(cart, {"qty": "0", "item": "91007"})[0] == 400
    assert "<td>2</td>" in ask(f"{shop}/checkout/cart/")[1]


def test_the_shop_finds_and_sorts(stand_ins):
    shop = stand_ins.addresses["shopping"]

    def names(path):
        return [
            part.split("</a>")[0].split(">")[-1] for part in ask(shop + path)[1].split("<main>")[1].split("<li>")[1:]
        ]

    found = names("/catalogsearch/result/?q=white+computer+desk")
    assert "White Computer Desk" in found and found.index("White Computer Desk") < found.index("Small White Desk")
    path = "/electronics/headphones.html?product_list_order=price"
    rising, falling = names(path), names(f"{path}&product_list_dir=desc")
    assert rising[-4:] == falling[-4:][::-1] and len(names("/electronics/headphones.html?price=0-16")) < len(rising)


def test_the_administration_cancels_and_saves(stand_ins):
    admin = stand_ins.addresses["shopping_admin"]
    assert ask(f"{admin}/sales/order/cancel/order_id/302/", {})[0] == 302
    assert "Status: Canceled" in ask(f"{admin}/sales/order/view/order_id/302/")[1]
    assert "Jane Doe" in ask(f"{admin}/mui/index/render/?filters%5Bstatus%5D=canceled")[1]
    assert "Jane Doe" not in ask(f"{admin}/mui/index/render/?filters%5Bstatus%5D=fraud")[1]
    assert ask(f"{admin}/reports/report_sales/sales/filter/%FF/")[0] == 400


def test_the_forge_makes_projects_and_invites(stand_ins):
    forge = stand_ins.addresses["gitlab"]
    fields = {"project[name]": "Toys", "project[path]": "toys", "project[visibility_level]": "0"}
    status, _, headers = ask(f"{forge}/projects", fields)
    assert (status, headers["Location"]) == (302, "/byteblaze/toys") and ask(f"{forge}/projects", fields)[0] == 400
    status, _, _ = ask(f"{forge}/api/v4/projects/174/invitations", body={"user_id": "5,168", "access_level": 30})
    page = ask(f"{forge}/a11yproject/a11yproject.com/-/project_members")[1]
    assert status == 201 and "@yjlou Developer" in page
    assert json.loads(ask(f"{forge}/primer/design/toggle_star.json", {})[1]) == {"star_count": 22}
    group = {"group[name]": "Friends", "group[path]": "friends"}
    assert [ask(f"{forge}/groups", group)[0] for _ in range(2)] == [302, 409]
    assert stand_ins.made["gitlab"].failures == []


@needs_kiwix
def test_the_encyclopedia_leads_to_its_pages(stand_ins):
    with urllib.request.urlopen(stand_ins.addresses["wikipedia"], timeout=10) as page:
        assert "Christopher Nolan" in page.read().decode()


def test_without_its_programs_the_encyclopedia_is_left_out_by_name(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with sites.started() as found:
        assert "wikipedia" not in found.addresses and "kiwix-tools" in found.missing["wikipedia"]
    assert "wikipedia" not in sites.names()


# -- oracles ---------------------------------------------------------------------------------------

PAGE = parse(
    "RootWebArea 'List'\n\theading 'One'\n\t[3] button 'Vote'\n"
    "\theading 'Two'\n\t[5] button 'Vote'\n\t[6] textbox 'Name'"
)


def test_a_step_finds_its_element_by_what_is_seen():
    assert click("button", "Vote").action(PAGE).arguments["bid"] == "3"
    assert click("button", "Vote", after="Two").action(PAGE).text() == "click('5')"
    assert fill("Name", lambda nodes: nodes[1].name).action(PAGE).text() == "fill('6', 'One')"
    with pytest.raises(OracleError, match=r"no button 'Votes'; near: .'Vote'"):
        click("button", "Votes").action(PAGE)
    with pytest.raises(OracleError, match="below 'Three'"):
        click("button", "Vote", after="Three").action(PAGE)


def test_without_its_last_action_a_plan_does_or_says_less():
    done = Plan([click("button", "Vote"), click("link", "On")])
    assert done.without_last().steps == done.steps[:1]
    asked = Plan(done.steps, lambda nodes: nodes[1].name)
    assert asked.response("RETRIEVE", PAGE).retrieved_data == ["One"]
    left = asked.without_last()
    assert left.steps == asked.steps and left.response("RETRIEVE", PAGE).retrieved_data is None


def _task(template, site, url, **expected):
    """A task of ours in the form of the benchmark's; url: where the network is expected to be asked."""
    event = {"url": url, **expected}
    return Task("1", template, "MUTATE", (site,), (f"__{site.upper()}__",), {}, (event,))


TASKS = {
    "gitlab": _task(361, "gitlab", "/api/v4/user/status", http_method="PUT", post_data={"message": "At the lake"}),
    "reddit": _task(6, "reddit", "/user/x/edit_biography", post_data={"user_biography[biography]": "Fond of lakes"}),
    "shopping": _task(199, "shopping", "/newsletter/subscriber/new", post_data={"email": "ann@example.com"}),
    "shopping_admin": _task(275, "shopping_admin", "/cms/page/save", post_data={"page_id": "5", "title": "Who we are"}),
}


@pytest.fixture(scope="module")
def tab():
    with contextlib.closing(SiteTab("a test", (), True)) as found:
        yield found


def posted(entries):
    return [entry["request"]["postData"]["text"] for entry in entries if "postData" in entry["request"]]


@needs_browser
@pytest.mark.parametrize("site", TASKS)
def test_an_oracle_does_its_task_by_clicks_and_fields(stand_ins, tab, site):
    task = TASKS[site]
    played = proof.play(tab, stand_ins, task, plan_of(task))
    assert not played.error
    value = list(task.sent().values())[-1]
    shown = value if site == "gitlab" else urllib.parse.urlencode({"": value})[1:]
    assert any(shown in text for text in posted(played.whole.entries)), posted(played.whole.entries)
    assert not any(shown in text for text in posted(played.short.entries))
    assert played.whole.response.task_type == "MUTATE"


@needs_browser
@needs_kiwix
def test_the_encyclopedia_is_read_in_the_browser(stand_ins, tab):
    tab.open(f"{stand_ins.addresses['wikipedia']}/index.html")
    tab.do(click("link", "Christopher Nolan").action(tab.look()))
    assert any(node.name == "Interstellar" for node in tab.look())


@needs_browser
def test_a_site_that_is_down_is_told_and_never_waited_for(tab):
    with sites.MAKERS["reddit"]().started() as url:
        tab.open(url)
        nodes = tab.look()
    begun = time.monotonic()
    tab.do(click("link", "Forums").action(nodes))
    assert any("can’t be reached" in node.name for node in tab.look())
    tab.notices = []
    tab.do(calls.parse(f"goto('{url}/forums')"))
    assert any("cannot be opened" in notice for notice in tab.notices)
    tab.recorder.clear()
    with pytest.raises(LostError, match="cannot be opened"):
        tab.open(url)
    assert time.monotonic() - begun < 120


@needs_browser
@needs_scorer
def test_the_official_scorer_gives_one_and_without_the_last_action_zero(stand_ins, tab, tmp_path):
    todo = proof.tasks(package.tasks_file(package.directory()), stand_ins.addresses)
    assert len(todo) >= 80 and len({task.number for task, _ in todo}) == len(todo)
    assert all(len(plan.steps) < MAX_STEPS for _, plan in todo)
    proofs = proof.prove(tab, stand_ins, [one for one in todo if one[0].number in ("44", "527", "231")], tmp_path)
    assert [(one.whole, one.short) for one in proofs] == [(1.0, 0.0)] * 3
