"""Charts of the page: points in their places, and a word for every series that is not seen."""

import math
import re

from anyorder_jax.evaluation import svg


def test_ticks_are_round_and_inside():
    assert svg.ticks(0, 1) == [0.0, 0.5, 1.0] or len(svg.ticks(0, 1)) <= 6
    assert svg.ticks(0, 1500) == [0, 500, 1000, 1500]
    for low, high in ((0.13, 0.97), (3, 1e6), (-2.5, 2.5), (7, 7)):
        found = svg.ticks(low, high)
        assert found and low <= found[0] + 1e-9 and found[-1] <= high + 1e-9


def test_charts_name_and_place_their_points():
    drawn = svg.line_chart("a < b", {"x": [(0, 1, 0.5, 1.5), (10, 2, 1.5, 2.5)], "none": []}, "steps")
    assert "a &lt; b" in drawn and drawn.count("<circle") == 2 and "var(--s0)" in drawn
    places = [float(found) for found in re.findall(r'cy="([\d.]+)"', drawn)]
    assert places[0] > places[1]  # a larger value stands higher
    assert svg.line_chart("nothing", {"x": []}, "steps") == ""


def test_a_band_ends_where_the_axis_does():
    def band(low, high):
        drawn = svg.line_chart("share", {"x": [(0, 0.5, low, high), (1, 0.5, low, high)]}, "steps", (0.0, 1.0))
        return drawn[drawn.index("<polygon") : drawn.index("<polyline")]

    assert band(-2.0, 3.0) == band(0.0, 1.0) != band(0.25, 0.75)


def test_dots_of_one_place_are_rings():
    """A curve that others cover is seen around their dots, and equal curves are said to be equal."""
    line = [(0, 1.0, 1.0, 1.0), (1, 2.0, 2.0, 2.0)]
    drawn = svg.line_chart("a", {"below": line, "above": line, "apart": [(0, 0.0, 0.0, 0.0)]}, "steps")
    dots = re.findall(r'r="([\d.]+)" style="fill:var\(--s(\d)\)', drawn)
    assert dots == [("4", "0"), ("4", "0"), ("2.5", "1"), ("2.5", "1"), ("2.5", "2")]
    assert "above: the same as below" in drawn and "apart:" not in drawn


def test_a_series_without_a_curve_is_named():
    point, lost = (0, 1.0, 0.5, 1.5), (1, math.nan, math.nan, math.nan)
    series = {"a": [point, (1, 1.0, 1.0, 1.0)], "b & c": [], "d": [], "e": [lost, point], "f": [lost]}
    drawn = svg.line_chart("loss", series, "steps", missing={"d": "never asked"})
    note = re.search("<figcaption>(.*)</figcaption>", drawn)[1]
    assert note == (
        "b &amp; c: no curve, nothing was measured; d: no curve, never asked; e: 1 of 2 points are not finite; "
        "f: 1 of 1 points are not finite."
    )
    assert "nan" not in drawn and "figcaption" not in svg.line_chart("loss", {"a": [point]}, "steps")
    bins = [{"confidence": 0.5, "accuracy": 0.5, "count": 3}]
    assert "y: no curve, no such token was asked" in svg.reliability_diagram("r", {"x": bins, "y": []})


def test_more_series_than_colors_differ_by_their_lines():
    strokes = re.findall(r"<line [^>]*?(style=.*?)/>", svg.key([str(number) for number in range(20)]))
    assert len(set(strokes)) == len(strokes) == 20
