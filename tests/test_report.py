"""The report: the command from checkpoint to files, its errors, and pictures that show what they claim."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from matplotlib.text import Text
from minigrid.core.constants import COLORS
from PIL import Image

from anyorder_jax import checkpoint, evaluate, run_directory, sharding, state, weights
from anyorder_jax.config import CheckpointConfig, Config, DataConfig, MaskingConfig, MeshConfig
from anyorder_jax.data import sources, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.evaluation import charts, film, held_out, policy, questions, report, rollout, strip
from anyorder_jax.evaluation.measures import CellWords
from anyorder_jax.evaluation.statistics import Estimate
from anyorder_jax.model import presets
from anyorder_jax.types import Field, Trajectory

LEVEL = "BabyAI-GoToObjS4-v0"
COUNTS = {"train": 6, "validation": 1, "test": 4}
ERROR = tuple(int(strip.ERROR[i : i + 2], 16) for i in (1, 3, 5))


def make_environment():
    return registry.make_environment(LEVEL)


def play(split, num):
    _, episodes = rollout.play_all(make_environment, list(sources.seed_range(0, split)[:num]), policy.ExpertPolicy)
    return episodes


def as_trajectory(episode):
    outcome = {"success": True, "return": episode.total_reward, "num_steps": episode.num_steps}
    source = {"environment": LEVEL, "seed": episode.seed, "expert": "BabyAIBot", "version": "test"}
    return Trajectory(f"{LEVEL}/{episode.seed}", tuple(episode.units), outcome, source)


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
            assert e["low"] <= e["value"] <= e["high"] and e["count"] >= e["episodes"] >= 1, name
    assert content["acting"]["expert"]["success"] == pytest.approx(
        {"value": 1.0, "low": 0.4385, "high": 1.0, "count": 3, "episodes": 3}, abs=1e-4
    )


def test_command_leaves_no_temporary_file(evaluated):
    names = {path.name for path in evaluated.iterdir()}
    assert names == {
        "report.json", "episodes.json", "loss.png", "summary.png", "strip.png", "rollout.gif", "expert.gif",
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
        (["--checkpoint={run}", "--modes=greedy,wild"], "got ['wild']"),
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


# -- pictures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["joint", "attributes"])
def drawn(request):
    """An ask, and what draws it."""
    codec, attribute_codec = (registry.make_codec(LEVEL, profile) for profile in (request.param, "attributes"))
    vocabulary = Vocabulary.builtin(codec)
    episodes = play("test", 8)
    examples = [units.tokenise(Trajectory(str(e.seed), tuple(e.units)), codec, vocabulary) for e in episodes]
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


# -- charts ----------------------------------------------------------------------------------------


@pytest.fixture()
def figures(monkeypatch):
    """The figures that are drawn, as the files' names and matplotlib's objects."""
    drawn = {}
    save = charts._save
    monkeypatch.setattr(charts, "_save", lambda figure, path: (drawn.update({path.name: figure}), save(figure, path)))
    return drawn


def estimate(value, half=0.1):
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), 100, 50)


KNOWN = {
    "causal": {"model": {"action_accuracy": estimate(0.999)}, "most_frequent": {"action_accuracy": estimate(0.6)},
               "always_forward": {"action_accuracy": estimate(0.5)}},
    "goal": {"model": {"exact_goal_rate": estimate(0.25)}, "most_frequent": {"exact_goal_rate": estimate(0.0)}},
}  # fmt: skip
PLAYED = {"model/greedy": {"success": estimate(0.9995)}, "expert": {"success": estimate(1.0)}}


def texts_of(figure):
    return [text for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", ["p$0.3^$", r"$\frac{1", "a_b^c", "50$ and 60$", r"\$x$", "#1 {100%} & ~"])
def test_names_are_drawn_as_they_are(name, figures, tmp_path):
    charts.summary_chart(KNOWN, PLAYED, name, tmp_path / "summary.png")
    found = {"columns": [name, "b"], "rows": [name, "other"], "relative": [[0.0, 0.5], [1.0, None]]}
    charts.heatmap(found, tmp_path / "heatmap.png")
    line = {"step": 10, "loss": 2.0, f"nll/{name}": 1.0}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert charts.loss_curves(tmp_path, tmp_path / "loss.png")
    for file in ("summary.png", "heatmap.png", "loss.png"):
        assert name in {text.get_text() for text in texts_of(figures[file])}
        assert not any(text.get_parse_math() or text.get_usetex() for text in texts_of(figures[file]))
    axis = figures["heatmap.png"].axes[0]
    assert axis.get_xticklabels()[0].get_text() == axis.get_yticklabels()[0].get_text() == name


def test_only_all_is_a_hundred_percent():
    said = [charts.percent(share) for share in (0.0, 0.0001, 0.0006, 0.5, 0.999, 0.9994, 0.9996, 0.99999, 1.0)]
    assert said == ["0%", "<0.1%", "0.1%", "50.0%", "99.9%", "99.9%", ">99.9%", ">99.9%", "100%"]


def test_summary_speaks_percent_and_every_bar_has_its_interval(figures, tmp_path):
    charts.summary_chart(KNOWN, PLAYED, "run", tmp_path / "summary.png")
    success, accuracy = figures["summary.png"].axes
    for axis in (success, accuracy):
        assert [label.get_text() for label in axis.get_yticklabels()] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    assert {">99.9%", "100%"} <= {text.get_text() for text in success.texts}
    assert {"99.9%", "60.0%", "25.0%", "0%"} == {text.get_text() for text in accuracy.texts}
    model, baseline = accuracy.containers[1], accuracy.containers[3]  # bars, intervals, bars, intervals
    ends = [sorted(segment[:, 1].tolist()) for one in (model, baseline) for segment in one[2][0].get_segments()]
    np.testing.assert_allclose(ends, [(0.899, 1.0), (0.15, 0.35), (0.5, 0.7), (0.0, 0.1)])


def write_log(folder, train, validation=()):
    for name, lines in (("train", train), ("validation", validation)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_the_first_losses_do_not_flatten_the_others(figures, tmp_path):
    train = [{"step": s, "loss": loss, "nll/action": 1.0, "accuracy/action": 0.5} for s, loss in ((9, 40.0), (18, 2.0))]
    write_log(tmp_path, train)
    charts.loss_curves(tmp_path, tmp_path / "loss.png")
    scales = {axis.get_title(loc="left"): axis.get_yscale() for axis in figures["loss.png"].axes}
    assert list(scales.values()) == ["log", "linear", "linear"]  # costs that hardly move need no logarithm
    assert "logarithmic" in next(iter(scales))


def test_a_training_point_stands_where_its_mean_was_measured(figures, tmp_path):
    """The loss of update k is that of the weights after k - 1: with a loss that falls by one an update, training and
    validation lie on one line. Drawn at its last update, training would lie above it."""
    train = [{"step": s, "loss": float(np.mean([100 - k for k in range(s - 10, s)]))} for s in (10, 20, 30)]
    write_log(tmp_path, train, [{"step": 15, "loss": 85.0}])
    charts.loss_curves(tmp_path, tmp_path / "loss.png")
    (axis,) = figures["loss.png"].axes
    for line in axis.get_lines():
        steps, losses = line.get_data()
        np.testing.assert_allclose(100 - np.asarray(steps), losses)


def test_a_loss_picture_says_why_training_and_validation_differ(figures, tmp_path):
    write_log(tmp_path, [{"step": 1, "loss": 1.0, "nll/other": 1.0}])
    charts.loss_curves(tmp_path, tmp_path / "loss.png")
    said = " ".join(figures["loss.png"]._supxlabel.get_text().split())
    assert "train: the mean over all updates since the point before" in said and "fixed rows of held-out" in said
    assert "other: hidden tokens of goals" in said and "inverse" not in said and "end of training" not in said
    masking = MaskingConfig(schedule="linear", rate=0.1, rate_end=0.6, complementary=True)
    said = " ".join(charts.why_they_differ(masking))
    assert "rate of the end of training (p = 0.6)" in said and "inverse of every mask" in said


def test_no_curve_of_the_loss_picture_is_left_out(figures, tmp_path):
    """A kind of unit that the last line lacks, a kind that only validation has, a value that is not finite."""
    train = [{"step": 1, "loss": 3.0, "nll/goal": 2.0}, {"step": 2, "loss": "NaN"}, {"step": 3, "loss": 1.0}]
    write_log(tmp_path, train, [{"step": 3, "loss": 1.0, "nll/action": 0.5}])
    charts.loss_curves(tmp_path, tmp_path / "loss.png")
    loss, nll = figures["loss.png"].axes
    assert {text.get_text() for text in nll.get_legend().get_texts()} == {"goal", "action"}
    assert np.isnan(loss.get_lines()[0].get_ydata()).tolist() == [False, True, False]
    assert [text.get_text() for text in loss.texts] == ["not finite: 1 of 4 values"]


def test_loss_curves_without_a_log_are_left_out(tmp_path):
    assert not charts.loss_curves(tmp_path, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


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

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match=r"report\.json: could not be written \(No space left on device\)"):
        report.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_tiles_differ():
    words = [("ball", "red", "none"), ("ball", "blue", "none"), ("door", "red", "open"),
             ("unseen", "none", "none"), ("empty", "none", "none"), ()]  # fmt: skip
    tiles = {strip.tile(w, is_agent=False).tobytes() for w in words}
    assert len(tiles) == len(words)
    assert strip.tile(words[0], is_agent=True).tobytes() not in tiles
