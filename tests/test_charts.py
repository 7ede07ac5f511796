"""The charts: names as typed, shares in %, costs that are all seen, and what is said below them."""

import json

import numpy as np
import pytest
from matplotlib.text import Text

from anyorder_jax.config import MaskingConfig
from anyorder_jax.evaluation import charts
from anyorder_jax.statistics import Estimate


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
