"""The page and the demo: self-contained, and in a real browser a click hides a cell and the model fills it."""

import contextlib
import datetime
import json
import re
import socket
import struct
import threading
import urllib.error
import urllib.request

import jax
import numpy as np
import pytest

import browser
import logs
from anyorder_jax import demo, weights
from anyorder_jax.evaluation import page, svg, viewer
from anyorder_jax.evaluation.held_out import open_held_out
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.types import Kind
from test_report import LEVEL, data, run  # noqa: F401  (fixtures: a run directory as `train` leaves it, untrained)

in_browser = pytest.mark.skipif(bool(browser.MISSING), reason=browser.MISSING)


@pytest.fixture(scope="module")
def opened(run):  # noqa: F811
    config, model_config, params, tokenizer = weights.load_for_inference(run)
    held_out = open_held_out(config, tokenizer, 4, None)
    model = Model(config, model_config, params, held_out.task.vocabulary, held_out.actions, held_out.row_length)
    return held_out, model


@pytest.fixture(scope="module")
def computed(opened):
    return viewer.precomputed(*opened, 0)["windows"]


@pytest.fixture(scope="module")
def server(run):  # noqa: F811
    with demo.open_server(str(run), 0, 2, 0) as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chrome():
    with browser.driver() as address:
        window = browser.Browser(address)
        yield window
        window.close()


# -- answers ---------------------------------------------------------------------------------------


def test_every_single_hole_is_answered_with_probabilities(computed):
    for window in computed:
        answers = window["answers"]
        for u, unit in enumerate(window["units"]):
            whole = answers[f"{u}.-1"]
            assert set(whole) == {f"{u}.{c}" for c in range(len(unit["cells"]))}
            for c in range(len(unit["cells"])) if len(unit["cells"]) > 1 else ():
                ((key, guesses),) = answers[f"{u}.{c}"].items()
                p = [probability for _, probability in guesses]
                assert key == f"{u}.{c}" and len(guesses) == viewer.TOP
                assert p == sorted(p, reverse=True) and 0 < sum(p) <= 1.001


def test_an_answer_is_the_models_own_distribution(opened):
    """The action's hole at the end of a window: what the policy is told, read through another door."""
    held_out, model = opened
    example = max(viewer.windows(held_out, 0), key=len)
    reader = viewer.Reader(held_out, model, [example])
    unit = int(np.flatnonzero(example.kind_U == Kind.ACTION)[-1])
    ((_, guesses),) = reader.answer([(0, [(unit, viewer.WHOLE)])])[0].items()
    row = example.tokens_L.copy()
    place = int(np.flatnonzero(example.slots_GL[0] == unit)[0])
    row[place] = held_out.task.vocabulary.mask_id
    log_p = model.action_logits([row], place - len(row))[0]
    for word, p in guesses:
        if word in held_out.actions:
            assert p == pytest.approx(float(np.exp(log_p[held_out.actions.index(word)])), abs=1e-3)


def test_answers_do_not_depend_on_what_is_hidden(opened):
    held_out, model = opened
    example = viewer.windows(held_out, 0)[0]
    tokens_L = example.tokens_L.copy()
    unit_L = example.slots_GL[0]
    tokens_L[np.flatnonzero(unit_L == 1)[5]] = held_out.task.vocabulary.encode_slot("lava")[0]
    other = type(example)(**{**vars(example), "tokens_L": tokens_L})
    first, second = (viewer.Reader(held_out, model, [one]).answer([(0, [(1, -1)])]) for one in (example, other))
    assert first == second


@pytest.mark.parametrize("question", [(9, [(0, 0)]), (0, [(99, 0)]), (0, [(1, 500)]), (0, [])])
def test_holes_that_are_not_there_are_refused(opened, question):
    held_out, model = opened
    reader = viewer.Reader(held_out, model, viewer.windows(held_out, 0))
    with pytest.raises(ValueError, match="viewer:"):
        reader.answer([question])


# -- the page --------------------------------------------------------------------------------------


@contextlib.contextmanager
def phone(path, is_dark=False):
    """A small window that shows a file."""
    with browser.driver() as address:
        window = browser.Browser(address, width=500, height=700, is_dark=is_dark)
        window.open(path.as_uri())
        yield window
        assert window.errors() == []
        window.close()


def contrast(color, other):
    """WCAG's contrast of two computed colors, 1 to 21."""
    levels = []
    for one in (color, other):
        channels = [int(found) / 255 for found in re.findall(r"\d+", one)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        levels.append(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def static_page(windows, folder):
    content = f"<h1>test</h1>{page.VIEWER.format(note=page.ONE_HOLE)}"
    path = folder / "index.html"
    models = [{"name": "m", "windows": windows}]
    path.write_text(page.fill_template("test", content, {"viewer": {"live": False, "models": models}}))
    return path


def test_the_page_asks_nothing_of_the_network(computed, tmp_path):
    text = static_page(computed, tmp_path).read_text()
    assert "@@" not in text and not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|url\(|@import|https?://", text)


def test_no_data_can_end_the_script_element():
    hostile = {"viewer": {"note": "</script><script>alert(1)</script>"}}
    text = page.fill_template("<b>", "", hostile)
    assert text.count("</script>") == 2 and "<title>&lt;b&gt;</title>" in text
    embedded = re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    assert json.loads(embedded) == hostile


def test_a_curve_of_a_suite_that_is_not_there_says_why(tmp_path):
    workdirs = {}
    for name, lines in (("both", ({"nll/action": 1.0, "nll/observation": 2.0},) * 2),
                        ("causal", ({"nll/action": 1.5},) * 2),
                        ("half", ({"nll/action": 1.2, "nll/observation": 2.0}, {"nll/action": 1.3}))):  # fmt: skip
        workdirs[name] = [tmp_path / name / str(seed) for seed in range(2)]
        for workdir, line in zip(workdirs[name], lines, strict=True):
            log = workdir / "metrics" / "validation.jsonl"
            log.parent.mkdir(parents=True)
            log.write_text(json.dumps({"step": 5, **line}) + "\n", encoding="utf-8")
    drawn = "".join(page._curves(workdirs))
    assert re.findall("<figcaption>(.*?)</figcaption>", drawn) == [
        "causal: no curve, its masks never ask for them; half: no curve, not every seed logged it."
    ]


def test_the_page_says_when_and_by_what_it_was_written():
    for text in (page.fill_template("t", "", {}), page.viewer_page("run", [{"environment": LEVEL}])):
        found = re.search(r"<footer[^>]*>Written (.*?) UTC by (anyorder-jax \S+) with jax (\S+)\.</footer>", text)
        written = datetime.datetime.strptime(found[1], "%Y-%m-%d %H:%M").replace(tzinfo=datetime.UTC)
        assert abs(datetime.datetime.now(datetime.UTC) - written) < datetime.timedelta(minutes=5)
        assert found[3] == jax.__version__


def test_the_demos_heading_says_what_one_sees():
    text = page.viewer_page("a <b>", [{"environment": LEVEL}] * 3)
    assert "<h1>What “a &lt;b&gt;” puts into a hole</h1>" in text and f"3 windows of the test split of {LEVEL}" in text


@in_browser
def test_an_answer_is_beside_the_cell_on_a_phone(computed, tmp_path):
    with phone(static_page(computed, tmp_path)) as window:
        for unit, kind in enumerate(unit["kind"] for unit in computed[0]["units"]):
            if kind != "observation":
                continue
            cell = f'[data-hole="{unit}.49"]'  # the last one of the grid
            window.run(f"document.querySelector({cell!r}).scrollIntoView({{block: 'end'}})")
            window.click(cell)
            window.wait(f"return document.querySelector({cell!r}).classList.contains('filled')")
            top, bottom, cell_bottom, height = window.run(
                f"const panel = document.querySelector('#panel').getBoundingClientRect(); return [panel.top, "
                f"panel.bottom, document.querySelector({cell!r}).getBoundingClientRect().bottom, window.innerHeight]"
            )
            assert cell_bottom <= top < bottom <= height


@in_browser
def test_an_answer_covers_nothing_on_a_wide_screen(chrome, computed, tmp_path):
    chrome.open(static_page(computed, tmp_path).as_uri())
    observations = [u for u, unit in enumerate(computed[0]["units"]) if unit["kind"] == "observation"]
    for unit in observations:
        chrome.click(f'[data-hole="{unit}.49"]')
    chrome.wait("return document.querySelector('#panel .guess')")
    panel, steps, height = chrome.run(
        "const box = (one) => { const r = document.querySelector(one).getBoundingClientRect();"
        "return [r.left, r.top, r.right, r.bottom]; };"
        "return [box('#panel'), box('#steps'), window.innerHeight]"
    )
    assert steps[2] <= panel[0] and panel[1] < height


@in_browser
def test_every_mark_of_the_viewer_is_explained(chrome, computed, tmp_path):
    chrome.open(static_page(computed, tmp_path).as_uri())
    said = chrome.run("return document.querySelector('#legend').innerText").split("\n")
    assert {"ball", "key", "door", "wall", "unseen", "hidden", "filled in, right", "filled in, wrong"} <= set(said)
    agent, wrong, right = chrome.run(
        "return ['.agent', '#legend .mark-wrong', '#legend .mark-filled:not(.mark-wrong)'].map((one) => {"
        "const node = document.querySelector(one);"
        "return [getComputedStyle(node).boxShadow, getComputedStyle(node, '::before').content,"
        "getComputedStyle(node, '::after').color]})"
    )
    assert wrong[0] != right[0] and wrong[1] == '"✕"' and right[1] == "none"  # by shape as well as by color
    assert agent[2] != re.match(r"rgb\(.*?\)", wrong[0])[0]


@in_browser
def test_a_table_that_is_cut_says_so(tmp_path):
    rows = [["", *(f"measure {number}" for number in range(12))], ["variant", *["0.123 ± 0.456"] * 12]]
    path = tmp_path / "index.html"
    path.write_text(page.fill_template("t", page._table(rows) + page._table([["", "a"], ["b", "1"]]), {}), "utf-8")
    with phone(path) as window:
        shown = "return [...document.querySelectorAll('.more')].map((one) => one.hidden ? '' : one.textContent)"
        said, nothing = window.run(shown)
        assert re.fullmatch(r"\d+ more columns to the right → scroll", said) and nothing == ""
        window.run("const box = document.querySelector('.scroll'); box.scrollLeft = box.scrollWidth")
        window.wait("return document.querySelector('.more').hidden")
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")


@in_browser
def test_an_option_is_not_broken_where_a_line_has_room_for_it(tmp_path):
    arguments = ["--config=configs/any_order.py:smoke", "--config.train.num_steps=100", "--config.data.path=a b"]
    text = page._variants({"one": arguments})
    assert "<span>&#x27;--config.data.path=a b&#x27;</span>" in text  # as a shell takes it
    path = tmp_path / "index.html"
    path.write_text(page.fill_template("t", text, {}), "utf-8")
    with phone(path) as window:
        heights = window.run("return [...document.querySelectorAll('code span')].map((one) => one.offsetHeight)")
        assert len(heights) == 6 and len(set(heights)) == 1
        assert window.run("return document.querySelector('code').offsetHeight") > 2 * heights[0]


@in_browser
def test_the_diagonal_is_seen_in_the_dark(tmp_path):
    bins = [{"confidence": 0.5, "accuracy": 0.5, "count": 3}]
    path = tmp_path / "index.html"
    path.write_text(page.fill_template("t", svg.reliability_diagram("r", {"x": bins}), {}), "utf-8")
    with phone(path, is_dark=True) as window:
        assert window.run("return matchMedia('(prefers-color-scheme: dark)').matches")
        stroke, paper = window.run(
            "return [getComputedStyle(document.querySelector('.ideal')).stroke,"
            "getComputedStyle(document.body).backgroundColor]"
        )
        assert contrast(stroke, paper) > 4.5


@in_browser
def test_a_click_hides_a_cell_and_the_answer_fills_it(chrome, computed, tmp_path):
    chrome.open(static_page(computed, tmp_path).as_uri())
    cell = '[data-hole="1.10"]'
    assert "hidden" not in chrome.classes(cell)
    chrome.click(cell)
    assert "hidden" in chrome.classes(cell) or "filled" in chrome.classes(cell)
    chrome.wait(f"return document.querySelector({cell!r}).classList.contains('filled')")
    guess, p = computed[0]["answers"]["1.10"]["1.10"][0]
    shown = chrome.run(f"const one = document.querySelector({cell!r}).dataset; return [one.answer, one.probability]")
    assert shown == [guess, str(p)]
    assert chrome.run("return document.querySelectorAll('#panel .guess').length") == viewer.TOP
    chrome.click('[data-hole="1.-1"]')  # the whole observation: every word of it, and no cell of another
    chrome.wait("return document.querySelectorAll('.filled').length == 50")
    chrome.click('[data-hole="1.-1"]')
    chrome.wait("return document.querySelectorAll('.filled, .hidden').length == 0")
    assert chrome.errors() == []


@in_browser
def test_a_narrow_window_does_not_scroll_sideways(computed, tmp_path):
    with browser.driver() as address:
        window = browser.Browser(address, width=420, is_dark=True)
        window.open(static_page(computed, tmp_path).as_uri())
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert window.run("return matchMedia('(prefers-color-scheme: dark)').matches")
        paper, ink = window.run("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        brightness = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (paper, ink)]
        assert brightness[0] < 150 < 500 < brightness[1]
        window.close()


# -- the demo --------------------------------------------------------------------------------------


def post(server, body, **headers):
    address = f"http://127.0.0.1:{server.server_port}/answer"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@in_browser
def test_the_demo_answers_several_holes_at_once(chrome, server):
    chrome.open(f"http://127.0.0.1:{server.server_port}/")
    for hole in ("1.10", "1.11", "2.-1"):
        chrome.click(f'[data-hole="{hole}"]')
    chrome.wait("return document.querySelectorAll('.filled').length == 3")
    chrome.click('[data-hole="1.11"]')
    chrome.wait("return document.querySelectorAll('.filled').length == 2")
    assert chrome.errors() == []


def test_the_demo_is_for_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    good = json.dumps({"window": 0, "holes": [[1, 3]]}).encode()
    assert set(post(server, good)) == {"1.3"}
    for body, headers, status in (
        (good, {"Host": "evil.example:80"}, 403),
        (good, {"Content-Type": "text/plain"}, 404),
        (b"{}", {}, 400),
        (b'{"window": 0, "holes": [[1, "x"]]}', {}, 400),
        (b'{"window": 77, "holes": [[1, 1]]}', {}, 400),
        (b'{"window": 0, "holes": [[1]]}', {}, 400),
        (b'{"window": 0, "holes": [[1, 1]], "sees": "past"}', {}, 400),
        (b'{"window": 0, "holes": [[1, 1]], "sees": 3}', {}, 400),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, body, **headers)
        assert caught.value.code == status
        assert b"Traceback" not in caught.value.read()


class NoReader:
    """A demo's windows and model, where neither is asked."""

    def described(self):
        return [{"title": "x" * 3_000_000, "units": []}]

    def answer(self, questions):
        raise AssertionError("asked")


@pytest.fixture
def bare():
    with demo.Server(NoReader(), "bare", 0) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def raw(server, head, body=b""):
    """The status line's number for bytes as they are; 0: no answer."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
        with contextlib.suppress(OSError):
            connection.sendall(body)
            connection.shutdown(socket.SHUT_WR)
        data = b"".join(iter(lambda: connection.recv(100_000), b""))
    return int(data.split()[1]) if data else 0


POST = "POST /answer HTTP/1.1\nHost: localhost\nContent-Type: application/json"
DEEP = b'{"window": 0, "holes": ' + b"[" * 50_000


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (f"{POST}\nContent-Length: abc", b"", 400),
        (f"{POST}\nContent-Length: 1e3", b"", 400),
        (f"{POST}\nContent-Length: ²", b"", 400),
        (f"{POST}\nContent-Length: +2", b"{}", 400),
        (f"{POST}\nContent-Length: -1", b"x" * 1_000_000, 400),
        (POST, b"{}", 411),
        (f"{POST}\nContent-Length: 1000000", b"x" * 1_000_000, 413),
        (f"{POST}\nContent-Length: {'9' * 5000}", b"", 413),
        (f"{POST}\nContent-Length: 50", b"{}", 400),
        (f"{POST}\nContent-Length: {len(DEEP)}", DEEP, 400),
        (f"{POST}\nContent-Length: 3", b"\xff\xfe\xfd", 400),
        (f"{POST}\nContent-Length: 4", b"null", 400),
        ("GET / HTTP/1.1\nHost: evil.example", b"", 403),
        ("GET / HTTP/1.1\nHost: evil.example:localhost", b"", 403),
        ("GET / HTTP/1.1\nHost: localhost.evil.example", b"", 403),
        ("GET / HTTP/1.1", b"", 403),
        ("GET / HTTP/1.1\nHost: localhost", b"", 200),
        ("GET / HTTP/1.1\nHost: LocalHost:8100", b"", 200),
        ("GET / HTTP/1.1\nHost: 127.0.0.1", b"", 200),
    ],
    ids=lambda value: value.split("\n")[-1][:40] if isinstance(value, str) else "",
)
def test_odd_requests_are_answered_and_the_terminal_stays_quiet(bare, head, body, status, capfd):
    assert raw(bare, head, body) == status
    assert "".join(capfd.readouterr()) == ""


def test_a_tab_that_is_closed_while_the_page_loads_says_nothing(bare, capfd):
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", bare.server_port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, at once
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(10)
        connection.close()
    assert raw(bare, "GET / HTTP/1.1\nHost: localhost") == 200
    assert "".join(capfd.readouterr()) == ""


def test_a_taken_port_is_told_before_the_model_is_loaded(bare, tmp_path, monkeypatch, capsys):
    (tmp_path / "checkpoints" / "1" / "params").mkdir(parents=True)
    monkeypatch.setattr(weights, "load_for_inference", lambda path: pytest.fail("loaded"))
    with pytest.raises(SystemExit) as caught:
        demo.main([f"--checkpoint={tmp_path}", f"--port={bare.server_port}"])
    assert f"port {bare.server_port} of 127.0.0.1 cannot be used" in caught.value.code
    for wrong in ("--port=70000", "--idle_minutes=nan"):
        with pytest.raises(SystemExit) as caught:
            demo.main([f"--checkpoint={tmp_path}", wrong])
        assert caught.value.code == 2 and "expected" in capsys.readouterr().err


def test_the_demo_stops_by_itself(run):  # noqa: F811
    with demo.open_server(str(run), 0, 1, 0) as started:
        thread = threading.Thread(target=started.stop_when_idle, args=(0.5,), daemon=True)
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_demo_without_a_checkpoint_says_so(capsys):
    with pytest.raises(SystemExit) as caught:
        demo.main(["--checkpoint=/nowhere/run"])
    assert "no checkpoint here" in caught.value.code


def test_a_run_of_grids_reads_no_file(run, tmp_path):  # noqa: F811
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(logs.maze()) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="--input: this run's episodes are grids"):
        demo.open_server(str(run), 0, 1, 0, str(log))


def test_a_page_is_written_and_nothing_served(run, tmp_path):  # noqa: F811
    demo.main([f"--checkpoint={run}", f"--output={tmp_path}/page.html", "--num_windows=1"])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (model,) = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["viewer"]["models"]
    (window,) = model["windows"]
    assert page.ONE_HOLE in text and {"1.-1", "1.10", "2.-1"} <= set(window["answers"])
