"""The page of a run of text: one reads an episode, hides anything in it, and the model fills it, with probabilities."""

import dataclasses
import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

import browser
import logs
import shop
from anyorder_jax import demo, generate, run_directory, task, weights
from anyorder_jax.acting.generator import Generator
from anyorder_jax.checkpoint import Checkpointer
from anyorder_jax.config import CheckpointConfig, defaults, freeze
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments.web.renderer import PageRenderer
from anyorder_jax.evaluation import reading
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import Kind, Unit
from runs import Trainer, tiny_config, tiny_model

in_browser = pytest.mark.skipif(bool(browser.MISSING), reason=browser.MISSING)
EPISODE = shop.make_trajectory(3)
SEARCH = 6  # the unit of the first call: search(query, color)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of text that learned nothing, with its data; an episode of 13 units fits into a context."""
    directory = tmp_path_factory.mktemp("text_page")
    shop.write(directory / "data", num_train=12, num_others=4)
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(directory / "data"), 0, 400
    config.data.context_tokens = config.data.row_length = 512
    config = freeze(config)
    opened = task.open_task(config)
    ids = opened.vocabulary
    shape = dataclasses.replace(
        tiny_model(), vocab_size=ids.size, pad_token_id=ids.pad_id, mask_token_id=ids.mask_id
    )  # fmt: skip
    trainer = Trainer(dataclasses.replace(tiny_config(), data=config.data), model_config=shape)
    writer = Checkpointer(directory / "run", CheckpointConfig())
    writer.save(trainer.state, {"batch": 0}, run_directory.describe(config, shape, opened.fingerprint))
    writer.close()
    opened.vocabulary.save(directory / "run" / "tokenizer")
    return directory / "run"


@pytest.fixture(scope="module")
def reader(run):
    config, model_config, params, tokenizer = weights.load_for_inference(run)
    generator = Generator(config, model_config, params, task.open_task(config, tokenizer))
    return reading.Reader(generator, [EPISODE, shop.make_trajectory(4)], "two episodes")


@pytest.fixture(scope="module")
def server(run):
    with demo.open_server(str(run), 0, 2, 0) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address():
    with browser.driver() as found:
        yield found


def texts(unit):
    """A described unit's words, by line."""
    return [["".join(word) for word in line] for line in unit["lines"]]


# -- what is drawn, and answers --------------------------------------------------------------------


def test_only_the_outermost_of_nested_places_count():
    assert reading.outermost([(1, 2), (1, 2, 3), (4, 0), (1, 2), (4,), (10, 1)]) == [(1, 2), (4,), (10, 1)]


@pytest.mark.parametrize("text", ["a mug, please", "駅は🙂 é", "🙂" * 30, "x\ufffdy\ufffd"])
def test_texts_of_tokens_are_the_text(text):
    vocabulary = Vocabulary.trained(["a mug, please"], TextRenderer(), 300)
    ids, _ = vocabulary.encode_text(text)
    found = reading.token_texts(ids, vocabulary)
    assert len(found) == len(ids) and "".join(found) == text
    assert "\ufffd" in text or not any("\ufffd" in one for one in found)


def test_a_unit_is_drawn_by_the_tokens_that_can_be_hidden(reader):
    window = reader.described()[0]
    assert window["title"] == f"1. {EPISODE.units[1].text} (reached)" and window["levels"][1:3] == ("line", "word")
    for unit, told in zip(window["units"], EPISODE.units, strict=True):
        assert "".join(map("".join, texts(unit))) == told.text
        assert (unit["kind"], unit["step"], unit["is_asked"]) == (told.kind.name.lower(), told.step, told.is_expert)
    call = window["units"][SEARCH]
    assert call["is_call"] and call["num_arguments"] == 2
    assert "query" in "".join(texts(call)[1]) and "color" in "".join(texts(call)[2])
    assert [unit["num_arguments"] for unit in window["units"] if unit["kind"] != "action"] == [0] * 9


def test_what_counts_as_a_call_is_what_the_renderer_cuts():
    call, other = (Unit(Kind.ACTION, 0, text) for text in ("fill('15', 'ann')", "I fill it."))
    assert len(PageRenderer().call_parts(call)) == 4 and PageRenderer().call_parts(other) == []
    assert TextRenderer().call_parts(call) == []
    assert len(TextRenderer().call_parts(Unit(Kind.ACTION, 0, shop.call("buy", id=3)))) == 3


def test_an_answer_is_what_generate_writes(reader):
    (answer,) = reader.answer([(0, [(SEARCH, 1)])])
    (hole,) = answer["holes"]
    (written,) = generate._filled(reader._generator, reader._generator.task, EPISODE, f"{SEARCH}.1", [0])
    assert [text if text is not None else "<end>" for text, _, _ in hole["tokens"]] == [
        text for text, _ in written["units"][0]["tokens"]
    ]
    assert [p for _, p, _ in hole["tokens"]] == pytest.approx([p for _, p in written["units"][0]["tokens"]], abs=1e-4)
    assert answer["passes"] == written["passes"] and answer["seen"] == list(range(13))
    assert hole["p"] == pytest.approx(np.prod([p for _, p, _ in hole["tokens"]]), rel=0.01)
    assert hole["was"] == "".join(texts(reader.described()[0]["units"][SEARCH])[1]) != hole["text"]
    assert not hole["is_equal"]


def test_the_first_look_is_the_models_distribution_at_the_open_hole(reader):
    (answer,) = reader.answer([(0, [(SEARCH, 1)])])
    tokens = answer["holes"][0]["tokens"]
    for _, _, look in tokens:
        *top, told = look
        p = [probability for _, probability in top]
        assert len(top) == reading.TOP and p == sorted(p, reverse=True) and 0 < sum(p) <= 1.001
        assert told in top or told[1] <= p[-1]
    told = "".join(look[-1][0] for _, _, look in tokens)
    assert answer["holes"][0]["was"].startswith(told)
    surest = max(tokens, key=lambda token: token[2][0][1])  # the first pass accepts it
    assert surest[:2] == pytest.approx(surest[2][0], abs=1e-4)


def test_answers_do_not_depend_on_what_is_hidden(reader):
    other = dataclasses.replace(EPISODE, units=tuple(
        dataclasses.replace(unit, text=unit.text.replace("0 results", "9 results")) for unit in EPISODE.units
    ))  # fmt: skip
    twin = reading.Reader(reader._generator, [other], "")
    first, second = (one.answer([(0, [(9,), (4, 0, 1)])])[0] for one in (reader, twin))
    assert [hole["text"] for hole in first["holes"]] == [hole["text"] for hole in second["holes"]]
    assert [hole["was"] for hole in first["holes"]] != [hole["was"] for hole in second["holes"]]


def test_of_the_past_alone_whole_units_are_written(reader):
    (answer,) = reader.answer([(0, [(11, 1)])], "past")  # an argument of a call, which a thought announces
    assert [hole["place"] for hole in answer["holes"]] == [(10,), (11,)] and answer["seen"] == list(range(12))
    assert [hole["was"] for hole in answer["holes"]] == [unit.text for unit in EPISODE.units[10:12]]


@pytest.mark.parametrize(
    ("question", "sees", "message"),
    [
        ((0, []), "", "nothing is hidden"),
        ((5, [(0,)]), "", r"expected an episode of 0\.\.1, got 5"),
        ((0, [(99,)]), "", "there is no unit 99"),
        ((0, [(1, 0, 0, 0, 0)]), "", "one to 4 numbers"),
        ((0, [(1,)]), "all", "expected what is seen to be 'everything' or 'past'"),
    ],
)
def test_a_wrong_question_gets_a_sentence(reader, question, sees, message):
    with pytest.raises(ValueError, match=message):
        reader.answer([question], sees)


# -- the demo --------------------------------------------------------------------------------------


def test_the_page_asks_nothing_of_the_network_and_no_text_ends_its_script(reader):
    hostile = dataclasses.replace(EPISODE.units[2], text="</script><script>alert(1)</script>")
    episode = dataclasses.replace(EPISODE, units=(*EPISODE.units[:2], hostile, *EPISODE.units[3:]))
    text = reading.Reader(reader._generator, [episode], "a <b>").page("run <i>")
    assert "@@" not in text and text.count("</script>") == 3 and "\\u003c" in text
    assert "a &lt;b&gt;" in text and "What “run &lt;i&gt;” puts into a hole" in text
    shown = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|url\(|@import|https?://", shown)


def post(server, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.server_port}/answer", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_a_request_is_answered_or_refused_in_a_sentence(server):
    found = post(server, {"window": 0, "holes": [[SEARCH, 1], [9]], "sees": "everything"})
    assert [hole["place"] for hole in found["holes"]] == [[SEARCH, 1], [9]]
    for body in ({"window": 0, "holes": [[77]]}, {"window": 0, "holes": []}, {"window": 0, "holes": [3]}):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, body)
        assert caught.value.code == 400 and caught.value.read().endswith(b".")


def test_episodes_of_a_log_are_read(run, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(one) + "\n" for one in (logs.maze(), logs.shop())), encoding="utf-8")
    with demo.open_server(str(run), 0, 5, 0, str(log), 1) as started:
        (window,) = started.reader.described()
        assert window["title"].startswith("1. What does tea cost?")
        assert f"An episode of {log}." in started.page.decode()
    with pytest.raises(ValueError, match=r"--record=2: .* ends before it"):
        demo.open_server(str(run), 0, 5, 0, str(log), 2)
    with pytest.raises(FileNotFoundError, match="no such file"):
        demo.open_server(str(run), 0, 5, 0, str(tmp_path / "none"))


@in_browser
def test_an_argument_of_a_call_is_hidden_and_filled(address, server):
    window = browser.Browser(address)
    window.open(f"http://127.0.0.1:{server.server_port}/")
    window.click("#fill")
    window.wait("return document.querySelector('#status').textContent.startsWith('Nothing is hidden yet')")
    window.click("#level label:has([value=argument])")
    argument = f'[data-hole="{SEARCH}.1"]'
    told = window.run(f"return document.querySelector({argument!r}).textContent")
    assert "query" in told and "color" not in told
    window.click(argument)
    assert "hidden-text" in window.classes(argument)
    window.click('#level label:has([value="word"])')
    window.click('[data-hole="5.0.1"]')
    window.click("#fill")
    window.wait("return document.querySelectorAll('.hole').length == 2")
    tokens = window.run(
        f"return [...document.querySelectorAll('{argument} .token')]"
        ".map((one) => [one.title, +one.dataset.probability])"
    )
    assert tokens and all(0 < p <= 1 and re.search(r"\d%$", title) for title, p in tokens)
    assert told.strip() in window.run(f"return document.querySelector({argument!r}).textContent")  # what it was
    said = window.run("return document.querySelector('#status').innerText")
    assert re.match(r"\d of 2 as they were; \d+ forward", said)
    window.run(f"document.querySelector('{argument} .token').focus()")
    bars = window.run(
        "return [...document.querySelectorAll('#detail .guess')]"
        ".map((one) => [parseFloat(one.querySelector('i').style.width), one.lastChild.textContent])"
    )
    assert len(bars) >= reading.TOP and all(abs(width - float(said.strip("<%"))) <= 0.1 for width, said in bars)
    window.click(f"{argument} .undo")  # the other hole stays, and has no answer now
    counted = "return ['.hole', '.hidden-text'].map((one) => document.querySelectorAll(one).length)"
    assert window.run(counted) == [0, 1]
    window.click("#clear")
    assert window.run(counted) == [0, 0]
    assert window.errors() == []
    window.close()


PRESS = """for (const key of {}) document.activeElement.dispatchEvent(
    new KeyboardEvent('keydown', {{key, bubbles: true, cancelable: true}}))"""


@in_browser
def test_a_written_page_holds_the_answers_of_every_single_hole(address, reader, tmp_path):
    path = tmp_path / "page.html"
    short = dataclasses.replace(EPISODE, units=(*EPISODE.units[:2], EPISODE.units[SEARCH]))
    one = reading.Reader(reader._generator, [short], "an episode")
    assert reading.single_places(one.described()[0]) == [(1,), (2,), (2, 0), (2, 1), (2, 2)]
    path.write_text(one.written("run"), encoding="utf-8")
    window = browser.Browser(address)
    window.open(path.as_uri())
    window.click('[data-hole="1"]')
    window.wait("return document.querySelectorAll('.filled-part .token').length")
    window.click('[data-hole="2.1"]')  # the first hole is shown again
    window.wait("return document.querySelectorAll('.hole .token').length && !document.querySelector('.filled-part')")
    (answer,) = one.answer([(0, [(2, 1)])])
    shown = window.run("return [...document.querySelectorAll('.hole .token')].map((one) => +one.dataset.probability)")
    assert shown == pytest.approx([p for _, p, _ in answer["holes"][0]["tokens"]], abs=1e-3)
    assert not window.run("return document.querySelector('#fill').offsetHeight")
    assert window.errors() == []
    window.close()


@in_browser
def test_the_page_works_by_keys_and_in_a_narrow_dark_window(address, server):
    window = browser.Browser(address, width=500, height=700, is_dark=True)
    window.open(f"http://127.0.0.1:{server.server_port}/")
    assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
    hidden = "return [...document.querySelectorAll('.hidden-text')].map((one) => one.dataset.hole)"
    window.run("document.querySelector('.tool .span[tabindex=\"0\"]').focus()")
    window.run(PRESS.format(["ArrowDown", "Enter"]))
    assert window.run(hidden) == ["8.1"]
    assert window.run("return document.activeElement.dataset.hole") == "8.1"
    window.run(PRESS.format(["Enter"]))
    assert window.run(hidden) == []
    window.run("window.fetch = () => Promise.reject(new TypeError('refused'))")  # as where nobody serves any more
    window.click('[data-hole="9"]')
    window.click("#fill")
    window.wait("return document.querySelector('#status').textContent.includes('the demo has stopped. Start its')")
    window.close()
