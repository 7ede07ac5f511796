"""The report: the command from checkpoint to files, its errors, and pictures that show what they claim."""

import dataclasses
import json
import os
import shutil
import sys
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from minigrid.core.constants import COLORS
from PIL import Image

from anyorder_jax import checkpoint, evaluate, run_directory, sharding, state, weights
from anyorder_jax.acting.policy import Advised
from anyorder_jax.asking.subject import Subject
from anyorder_jax.config import CheckpointConfig, Config, DataConfig, MeshConfig, freeze
from anyorder_jax.data import overlap, sources, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.evaluation import film, held_out, of_grid, questions, report, rollout, strip
from anyorder_jax.evaluation.measures import CellWords
from anyorder_jax.evaluation.request import Request
from anyorder_jax.model import presets
from anyorder_jax.statistics import Estimate
from anyorder_jax.types import Field, Trajectory

LEVEL = "BabyAI-GoToObjS4-v0"
COUNTS = {"train": 6, "validation": 1, "test": 4}
ERROR = tuple(int(strip.ERROR[i : i + 2], 16) for i in (1, 3, 5))


def make_environment():
    return registry.make_environment(LEVEL)


def play(split, num):
    _, episodes = rollout.play_all(make_environment, list(sources.seed_range(0, split)[:num]), Advised())
    return episodes


def as_trajectory(episode):
    outcome = {"success": True, "return": episode.total_reward, "num_steps": episode.num_steps}
    source = {"environment": LEVEL, "seed": int(episode.task), "expert": "BabyAIBot", "version": "test"}
    return Trajectory(f"{LEVEL}/{episode.task}", tuple(episode.units), outcome, source)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few recorded episodes of one level."""
    directory = tmp_path_factory.mktemp("data")
    splits = {}
    for split, num in COUNTS.items():
        lines = [sources.encode(as_trajectory(e)) for e in play(split, num)]
        path = directory / split / "shard-00000.jsonl"
        num_bytes, digest = sources.write_shard(path, lines)
        splits[split] = (sources.Shard(f"{split}/{path.name}", num, 0, num_bytes, digest),)
    sources.write_manifest(directory, sources.Manifest(LEVEL, {"seed": 0}, splits))
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """A run directory with an untrained model, as `train` leaves it."""
    directory = tmp_path_factory.mktemp("runs") / "untrained"
    config = Config(data=DataConfig(environment=LEVEL, path=str(data), num_episodes=0, window=2))
    vocabulary = Vocabulary.builtin(registry.make_codec(LEVEL, "joint"))
    shape = dataclasses.replace(
        presets.get("tiny"), vocab_size=vocabulary.size, num_hidden_layers=2, num_experts=4, hidden_size=32,
        pad_token_id=vocabulary.pad_id,
    )  # fmt: skip
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    fresh = state.create(shape, optax.sgd(0.1), mesh, "float32", jax.random.key(0))
    checkpointer = checkpoint.Checkpointer(directory, CheckpointConfig())
    checkpointer.save(fresh, {"batch": 0}, run_directory.describe(config, shape, {}))
    checkpointer.close()
    vocabulary.save(directory / "tokenizer")
    lines = [{"step": s, "loss": 3.0 / s, "nll/action": 1.0 / s, "accuracy/action": 0.5} for s in (1, 2, 3)]
    (directory / "metrics").mkdir()
    (directory / "metrics" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


@pytest.fixture(scope="module")
def evaluated(run):
    """What the command leaves in RUN/report."""
    evaluate.main([f"--checkpoint={run}", "--num_episodes=3", "--modes=greedy,visit_penalty"])
    return run / "report"


def test_command_writes_every_number_with_its_interval(evaluated):
    content = json.loads((evaluated / "report.json").read_text())
    assert content["about"]["environment"] == LEVEL and content["about"]["window"] == 2
    assert set(content["world_model"]) == {q.name for q in questions.QUESTIONS}
    found = content["world_model"]["any_order@0.5"]
    assert {"nll_per_token", "nll_per_cell", "nll_per_observation", "cell_accuracy"} <= set(found["model"])
    assert set(content["acting"]) == {
        "model/greedy", "model/visit_penalty", "no_model/greedy", "no_model/visit_penalty",
        "random", "expert",
    }  # fmt: skip
    by_measure = [*content["acting"].values()]
    by_measure += [found for by_name in content["world_model"].values() for found in by_name.values()]
    for found in by_measure:
        assert found
        for name, e in found.items():
            assert e["count"] >= e["episodes"] >= 1, name
            if e["low"] is None:  # a single episode tells nothing about others
                assert e["episodes"] == 1 and e["high"] is None, name
            else:
                assert e["low"] <= e["value"] <= e["high"], name
    assert content["acting"]["expert"]["success"] == pytest.approx(
        {"value": 1.0, "low": 0.4385, "high": 1.0, "count": 3, "episodes": 3}, abs=1e-4
    )


def test_command_leaves_no_temporary_file(evaluated):
    names = {path.name for path in evaluated.iterdir()}
    assert names == {
        "report.json", "episodes.json", "loss.png", "rows.jsonl", "summary.png", "strip.png", "rollout.gif",
        "expert.gif",
    }  # fmt: skip


def test_untrained_model_knows_nothing(evaluated):
    """Near-uniform probabilities cost the log of the vocabulary; a leak of the answer would show here."""
    found = json.loads((evaluated / "report.json").read_text())["world_model"]["any_order@0.5"]["model"]
    size = Vocabulary.builtin(registry.make_codec(LEVEL, "joint")).size
    assert found["nll_per_token"]["value"] == pytest.approx(np.log(size), rel=0.2)


def test_pictures_open_and_are_not_blank(evaluated):
    for name in ("loss.png", "summary.png", "strip.png"):
        image = np.asarray(Image.open(evaluated / name).convert("RGB"))
        assert image.shape[0] > 200 and image.shape[1] > 300
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10, name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint=/nowhere/run"], "no checkpoint here"),
        (["--checkpoint={run}", "--env=BabyAI-GoToObjj-v0"], "Did you mean"),
        (["--checkpoint={run}", "--rules=greedy,wild"], "got ['wild']"),
        (["--checkpoint={run}", "--num_episodes=0"], "num_episodes >= 1"),
        (["--checkpoint={run}", "--num_episodes=2", "--output_dir=/proc/nowhere"], "could not be written"),
    ],
)
def test_errors_are_one_clear_sentence(run, flags, message, capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate.main([flag.format(run=run) for flag in flags])
    assert message in caught.value.code and "\n" not in caught.value.code and len(caught.value.code) < 400


def test_rollouts_on_training_seeds_are_refused(run, data, tmp_path):
    """A recorded training split that holds a test seed would make success meaningless."""
    leaked = sources.encode(as_trajectory(play("test", 1)[0]))
    splits = {}
    for split in COUNTS:
        num_bytes, digest = sources.write_shard(tmp_path / split / "shard-00000.jsonl", [leaked])
        splits[split] = (sources.Shard(f"{split}/shard-00000.jsonl", 1, 0, num_bytes, digest),)
    sources.write_manifest(tmp_path, sources.Manifest(LEVEL, {"seed": 0}, splits))
    config, *_, tokenizer = weights.load_for_inference(run)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(tmp_path)))
    with pytest.raises(ValueError, match="Choose another --seed"):
        held_out.open_held_out(config, tokenizer, 2, None)
    assert held_out.open_held_out(config, tokenizer, 2, seed=5).seeds == [59_000_000, 59_000_001]


@pytest.fixture(scope="module")
def seen(tmp_path_factory, data, run):
    """A run whose training split holds a test episode under another seed, and the start of another (two new ones)."""
    folder = tmp_path_factory.mktemp("seen")
    shutil.copytree(data, folder / "data")
    known = overlap.Known.of(sources.read_trajectories(data, "train"))
    test = [t for t in sources.read_trajectories(data, "test") if not known.begins(t.units)]
    twin = dataclasses.replace(test[0], id="twin", source={**test[0].source, "seed": 77})
    begun = dataclasses.replace(test[1], id="begun", units=test[1].units[:-2], source={**test[1].source, "seed": 78})
    lines = [sources.encode(t) for t in (*sources.read_trajectories(data, "train"), twin, begun)]
    size, digest = sources.write_shard(folder / "data" / "train" / "shard-00000.jsonl", lines)
    manifest = sources.read_manifest(data)
    shard = dataclasses.replace(manifest.splits["train"][0], num_episodes=len(lines), num_bytes=size, sha256=digest)
    splits = {**manifest.splits, "train": (shard,)}
    sources.write_manifest(folder / "data", dataclasses.replace(manifest, splits=splits))
    config, *_, tokenizer = weights.load_for_inference(run)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(folder / "data"))), tokenizer


def test_what_held_out_episodes_share_with_training_is_counted_and_can_be_left_out(seen, data):
    config, tokenizer = seen
    test = sources.read_trajectories(data, "test")
    before = overlap.Known.of(sources.read_trajectories(data, "train")).counts(test)
    known = overlap.Known.of(sources.read_trajectories(config.data.path, "train"))
    alike = [known.begins(t.units) for t in test]
    by_seed = held_out.open_held_out(config, tokenizer, 4, None)
    assert by_seed.overlap == ("seed", 4, before["num_identical"] + 1, sum(alike), 4, sum(alike))
    assert sum(alike) == before["num_same_start"] + 2 < 4
    assert f"training episode of another seed, {sum(alike)} begin like one" in by_seed.overlap.sentence()
    by_layout = held_out.open_held_out(config, tokenizer, 4, None, held_out.Which(held_out="layout"))
    assert [t.id for t in by_layout.trajectories] == [
        t.id for t, is_alike in zip(test, alike, strict=True) if not is_alike
    ]
    assert len(by_layout.seeds) == 4
    environment = make_environment()
    assert not any(known.begins(environment.reset(seed)) for seed in by_layout.seeds)
    environment.close()
    assert by_layout.overlap.num_seeds - by_layout.overlap.num_seeds_same_start == 4


def test_another_levels_episodes_are_compared_with_what_the_run_was_trained_on(seen, data):
    config, tokenizer = seen
    elsewhere = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(data)))
    own = held_out.open_held_out(elsewhere, tokenizer, 4, None)
    found = held_out.open_held_out(elsewhere, tokenizer, 4, None, trained_on=config.data)
    assert found.overlap.num_identical == own.overlap.num_identical + 1
    gone = dataclasses.replace(config.data, path="/nowhere/at/all")
    found = held_out.open_held_out(elsewhere, tokenizer, 4, None, trained_on=gone).overlap
    assert found.num_identical is None and "nobody counted" in found.sentence()
    with pytest.raises(ValueError, match="held_out=layout: the data that the run was trained on are not here"):
        held_out.open_held_out(elsewhere, tokenizer, 4, None, held_out.Which(held_out="layout"), gone)


def test_every_report_says_it(evaluated):
    found = json.loads((evaluated / "report.json").read_text())["about"]
    assert found["overlap"]["held_out"] == "seed" and found["overlap"]["num_episodes"] == 3
    assert sorted(file.partition("/")[0] for file in found["data"]["files"]) == ["test", "train"]


def subject(run):
    meta = run_directory.read_meta(run)
    return Subject(str(run), run, 0, freeze(meta["config"]), meta["data"])


def test_a_run_is_not_evaluated_beside_other_training_data(run, data, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    held = held_out.open_held_out(*weights.load_for_inference(run)[::3], 2, None)
    of_grid.refuse_other_data(subject(run), held)  # a run that did not store what it was trained on
    meta = copy / "checkpoints" / "0" / "meta" / run_directory.META_NAME
    content = run_directory.verified(json.loads(meta.read_text()))
    files = held.task.fingerprint["files"]
    for other, is_same in ((files, True), ({**files, "train/shard-00000.jsonl": "0"}, False)):
        meta.write_text(json.dumps(run_directory.sealed({**content, "data": {"files": other}})))
        if is_same:
            of_grid.refuse_other_data(subject(copy), held)
    with pytest.raises(ValueError, match=r"not the data .* trained on \(train/shard-00000\.jsonl has other contents"):
        of_grid.refuse_other_data(subject(copy), held)


@pytest.mark.parametrize("suite", ["likelihood", "robustness", "decoding", "report"])
def test_what_was_computed_is_written_before_it_is_printed(suite, run, tmp_path, monkeypatch):
    """Nobody reads standard output any more; how it is computed does not matter here."""

    def gone(*arguments, file=None, **keywords):
        if file in (None, sys.stdout):
            raise BrokenPipeError(32, "Broken pipe")

    found = {"forward": {}}
    monkeypatch.setattr(of_grid, "print", gone, raising=False)
    monkeypatch.setattr(of_grid.sequence_nll, "evaluate", lambda *a, **k: found)
    monkeypatch.setattr(of_grid.calibration, "evaluate", lambda *a, **k: found)
    monkeypatch.setattr(of_grid.robustness, "evaluate", lambda *a, **k: found)
    monkeypatch.setattr(of_grid.planning, "evaluate", lambda *a, **k: found)
    monkeypatch.setattr(of_grid.world_model, "evaluate", lambda *a, **k: found)
    monkeypatch.setattr(of_grid.acting, "evaluate", lambda *a, **k: SimpleNamespace(summaries=found))
    for table in ("likelihood_table", "robustness_table", "acting_table", "text"):
        monkeypatch.setattr(of_grid.report, table, lambda *a: "table")
    with pytest.raises(BrokenPipeError):
        evaluate.evaluate(str(run), Request(num_episodes=2, parts=(suite,), output_dir=str(tmp_path)))
    assert json.loads((tmp_path / f"{suite}.json").read_text()).keys() > {"about"}


# -- pictures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["joint", "attributes"])
def drawn(request):
    """An ask, and what draws it."""
    codec, attribute_codec = (registry.make_codec(LEVEL, profile) for profile in (request.param, "attributes"))
    vocabulary = Vocabulary.builtin(codec)
    episodes = play("test", 8)
    examples = [units.tokenise(Trajectory(e.task, tuple(e.units)), codec, vocabulary) for e in episodes]
    return (
        strip.choose(examples, 3, 0),
        CellWords(codec, attribute_codec, vocabulary, episodes[0].units[1]),
        vocabulary,
    )


def error_pixels(image):
    """Above the legend, which shows a mark as well."""
    return int((np.asarray(image)[: -strip.FOOT] == ERROR).all(-1).sum())


def test_strip_marks_errors_and_only_errors(drawn):
    ask, cell_words, vocabulary = drawn
    truth_T = ask.example.tokens_L[ask.hidden.is_target_L].astype(np.int64)
    right = strip.Strip(ask, truth_T, cell_words, vocabulary).image()
    assert error_pixels(right) == 0
    fields = ask.example.field_L[ask.hidden.is_target_L]
    wrong_T = truth_T.copy()
    (t, *_) = np.flatnonzero((fields == Field.CELL) | (fields == Field.OBJECT))
    wrong_T[t] = vocabulary.encode_slot("goal")[0]
    wrong = strip.Strip(ask, wrong_T, cell_words, vocabulary).image()
    assert error_pixels(wrong) >= 4 * 2 * (strip.TILE - 2)  # one frame, two pixels thick, and the cross's badge
    # nothing above the third row changes
    third = strip.TOP + 2 * strip.ROW
    np.testing.assert_array_equal(np.asarray(right)[:third], np.asarray(wrong)[:third])


def test_an_error_is_told_by_its_shape_too():
    """The agent and many things are red; a reader may not tell red from green; a print may be grey."""
    assert ERROR not in {tuple(map(int, color)) for color in COLORS.values()}
    for words in (("ball", "red", "none"), ("empty", "none", "none"), ("wall", "grey", "none")):
        for is_agent in (False, True):
            cell = strip.tile(words, is_agent)
            grey, marked = (np.asarray(one.convert("L"), int) for one in (cell, strip._crossed(cell)))
            assert (np.abs(grey - marked) > 60).sum() > 3 * strip.TILE
            assert (marked == 255).sum() > strip.TILE  # a white line and a white cross


def test_strip_shows_holes_not_answers(drawn):
    """The second row is the same whatever stands behind the holes."""
    ask, cell_words, vocabulary = drawn
    hidden_L = ask.hidden.is_hidden_L
    assert hidden_L.any()
    tokens_L = ask.example.tokens_L.copy()
    view_L = hidden_L & np.isin(ask.example.field_L, [Field.CELL, Field.OBJECT])
    tokens_L[view_L] = vocabulary.encode_slot("wall")[0]
    changed = ask._replace(example=dataclasses.replace(ask.example, tokens_L=tokens_L))
    chosen_T = tokens_L[ask.hidden.is_target_L]
    first, second = (np.asarray(strip.Strip(one, chosen_T, cell_words, vocabulary).image()) for one in (ask, changed))
    rows = [slice(strip.TOP + r * strip.ROW, strip.TOP + (r + 1) * strip.ROW) for r in range(3)]
    assert (first[rows[0]] != second[rows[0]]).any()
    np.testing.assert_array_equal(first[rows[1]], second[rows[1]])


def test_older_names_of_flags_are_taken_with_a_sentence(capsys):
    older = evaluate._parse(["--checkpoint=x", "--modes=greedy", "--suite=viewer"])
    assert capsys.readouterr().err.splitlines() == [
        "evaluate: --modes is called --rules now; it means the same.",
        "evaluate: --suite is called --parts now; it means the same.",
    ]
    assert older == evaluate._parse(["--checkpoint=x", "--rules=greedy", "--parts=viewer"])
    assert capsys.readouterr().err == "" and older.rules == "greedy" and older.parts == "viewer"


def test_film_has_a_frame_a_step(tmp_path):
    episodes = play("test", 3)
    steps_E = np.array([e.num_steps for e in episodes])
    chosen = film.choose(episodes, steps_E)
    assert chosen.num_steps == steps_E.max()
    environment = make_environment()
    film.save(film.frames(environment, chosen, "expert"), tmp_path / "film.gif")
    environment.close()
    with Image.open(tmp_path / "film.gif") as image:
        assert image.n_frames == chosen.num_steps + 1
        assert image.size == (film.SCENE, film.SCENE + film.CAPTION)


def test_a_films_head_is_as_dark_as_its_scene():
    environment, (episode,) = make_environment(), play("test", 1)
    head = np.asarray(film.frames(environment, episode, "expert")[0])[: film.CAPTION].astype(int)
    environment.close()
    assert head.mean() < 60 and head.max() > 200  # on a dark page it does not glare, and its words are read


# -- files and tables ------------------------------------------------------------------------------


def test_table_aligns_and_shows_model_beside_baselines():
    half = Estimate(0.5, 0.4, 0.6, 10, 5)
    results = {"causal": {"model": {"action_accuracy": half}, "most_frequent": {"action_accuracy": half}}}
    lines = report.world_model_table(results).splitlines()
    assert lines[0].endswith("most frequent") and lines[1].startswith("causal")
    assert lines[1].split()[-1] == "0.500" and "[0.400, 0.600]" in lines[1]
    assert len({len(line) for line in lines}) == 1


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    report.write_json(path, {"a": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"report\.json: could not be written \(No space left on device\)"):
        report.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(tmp_path) == ["report.json"]


def test_tiles_differ():
    words = [("ball", "red", "none"), ("ball", "blue", "none"), ("door", "red", "open"),
             ("unseen", "none", "none"), ("empty", "none", "none"), ()]  # fmt: skip
    tiles = {strip.tile(w, is_agent=False).tobytes() for w in words}
    assert len(tiles) == len(words)
    assert strip.tile(words[0], is_agent=True).tobytes() not in tiles
