"""A newcomer's logs: nasty records are read or refused in a sentence, unfinished ones are gone on with."""

import json

import numpy as np
import pytest

import logs
from anyorder_jax import generate
from anyorder_jax.acting import filling
from anyorder_jax.data import contexts, sources, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.ingest import ingest
from anyorder_jax.ingestion import episodes
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import Kind, Trajectory, Unit

CALL = {"name": "f", "arguments": {"q": {"a": [1, {"b": None}], "s": '{"x":1}'}}}
CALL_TEXT = '{"name":"f","arguments":{"q":{"a":[1,{"b":null}],"s":"{\\"x\\":1}"}}}'


def called(arguments, result):
    message = {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    ]}  # fmt: skip
    turns = [{"role": "user", "content": "do"}, message, {"role": "tool", "tool_call_id": "1", "content": result}]
    return {"messages": [*turns, {"role": "assistant", "content": "done"}]}


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        (called(json.dumps(CALL["arguments"]), ""), ["do", CALL_TEXT, "done"]),
        (called(CALL["arguments"], None), ["do", CALL_TEXT, "done"]),
        (called("not json", 4.5), ["do", '{"name":"f","arguments":"not json"}', "4.5", "done"]),
        (logs.messages(("user", 3), ("assistant", True)), ["3", "true"]),
        (logs.messages(("developer", "Be."), ("user", "a\r\nb"), ("assistant", "c")), ["Be.", "a\r\nb", "c"]),
        (logs.messages(("user", "駅\u2028は"), ("assistant", "بِسْمِ"), ("user", "🙂")), ["駅\u2028は", "بِسْمِ", "🙂"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("bom", "newline"), [(b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_nasty_records_are_ingested(tmp_path, record, texts, bom, newline):
    log = tmp_path / "log.jsonl"
    log.write_bytes(bom + json.dumps(record, ensure_ascii=False).encode() + newline)
    ingest([str(log)], tmp_path / "out", num_workers=1)
    (episode,) = sources.read_trajectories(tmp_path / "out", "train")
    assert [unit.text for unit in episode.units] == texts


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("name", ["log.jsonl", "log.json"])
def test_a_log_of_another_encoding_says_what_to_do(tmp_path, encoding, name):
    record = logs.messages(("user", "é"), ("assistant", "b"))
    (tmp_path / name).write_bytes((json.dumps(record, ensure_ascii=False) + "\n").encode(encoding))
    with pytest.raises(ValueError, match=r"no UTF-8 .*: write the file again as UTF-8"):
        ingest([str(tmp_path / name)], tmp_path / "out", num_workers=1)


def test_what_is_written_into_may_be_any_log(tmp_path):
    log = tmp_path / "log.json"
    unfinished = logs.messages(("system", "Sell."), ("user", "Tea?"))
    log.write_text(json.dumps([unfinished, logs.maze()]), encoding="utf-8")
    (episode,) = episodes.read(str(log))
    assert [(unit.kind, unit.text) for unit in episode.units] == [(Kind.SYSTEM, "Sell."), (Kind.GOAL, "Tea?")]
    assert [one.id for one in episodes.read(str(log), 1, 5)] == ["maze_1"]
    with pytest.raises(ValueError, match=r"--record=2: .* ends before it"):
        episodes.read(str(log), 2)
    log.write_text(json.dumps({"prompt": "a"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"log\.json:1: not recognised: an object with 'prompt'"):
        episodes.read(str(log))
    with pytest.raises(FileNotFoundError, match="no such file"):
        episodes.read(str(tmp_path / "none.json"))


def test_a_shard_and_one_of_its_lines_are_the_same_episode(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(logs.shop()) + "\n", encoding="utf-8")
    shard = ingest([str(log)], tmp_path / "out", num_workers=1) / "train" / "shard-00000.jsonl"
    (tmp_path / "episode.json").write_text(shard.read_text(encoding="utf-8"), encoding="utf-8")
    alone, in_shard = (episodes.read(str(path))[0] for path in (tmp_path / "episode.json", shard))
    assert alone == in_shard and alone.units == episodes.read(str(log))[0].units


def test_what_is_asked_of_a_long_episode_stands_in_a_context_of_training():
    told = [Unit(Kind.SYSTEM, 0, "rules"), Unit(Kind.GOAL, 0, "tea")]
    for step in range(12):
        told += [Unit(Kind.OBSERVATION, step, f"page {step}"), Unit(Kind.ACTION, step, f"go {step}")]
    renderer = TextRenderer()
    vocabulary = Vocabulary.trained([unit.text for unit in told], renderer, 300)
    example = units.tokenise(Trajectory("long", tuple(told)), renderer, vocabulary)
    budget = len(example) // 3
    for ask, last in (("goal", 25), ("10", 11), ("11", 11)):
        given = filling.shown_around(example, generate._hidden(example, ask), budget)
        shown, is_hidden_L, place_L, number_U = given
        wanted = contexts.context(example, last, budget)
        assert np.array_equal(shown.tokens_L, wanted.tokens_L) and len(shown) <= budget and number_U[-1] == last
        asked = number_U[np.unique(shown.slots_GL[0][is_hidden_L])]
        assert asked.tolist() == [1 if ask == "goal" else int(ask)]
        assert np.array_equal(example.tokens_L[place_L], shown.tokens_L)
        assert "the model sees its units 0-1, " in filling.what_is_seen(example, given)
    both = generate._hidden(example, "2") | generate._hidden(example, "25")
    with pytest.raises(ValueError, match=r"unit 2 does not fit into .* Ask for fewer units"):
        filling.shown_around(example, both, budget)
    given = filling.shown_around(example, both, 0)
    whole, is_hidden_L, _, _ = given
    assert filling.what_is_seen(example, given) == ""
    assert whole is example and np.array_equal(is_hidden_L, both)
