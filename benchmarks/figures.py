"""Figures: the pictures of the documents, drawn from the code and the results that they show.

    python -m benchmarks.figures            # writes docs/figures/*.svg
    python -m benchmarks.figures --check    # writes nothing; exit status 1 where a picture would change

masks             a draw of every order by the sampler that training uses (`masking/sampler.py`)
contexts          which units examples show within a budget (`data/contexts.py`)
objectives        who attends to whom (`model/attention.py`)
demonstrations    success over demonstrations by training seed (`experiments/data.json`)
conditionals      what each recipe pays on each question above the best of them (`experiments/conditionals.json`)

Colors follow the reader's: light or dark by `prefers-color-scheme`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from anyorder_jax.config import ORDERS, MaskingConfig
from anyorder_jax.data import contexts
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.model.attention import BlockDiffusion, Segments, can_attend
from anyorder_jax.types import Field, Kind, Tokenised

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "figures"
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 12px; fill: #59636e }
.mono { font-family: ui-monospace, monospace } .middle { text-anchor: middle } .end { text-anchor: end }
.seen { fill: #eaeef2; stroke: #c4ccd4 } .asked { fill: #d9480f; stroke: #d9480f } .axis { stroke: #c4ccd4 }
.hidden { fill: none; stroke: #8c959f; stroke-dasharray: 3 2 } .line { fill: none; stroke-width: 2 }
.any { stroke: #d9480f; fill: #d9480f } .causal { stroke: #1c6dd0; fill: #1c6dd0 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9198a1 }
.seen { fill: #2b323b; stroke: #454d57 } .hidden { stroke: #6e7681 } .axis { stroke: #454d57 }
.asked { fill: #e8590c; stroke: #e8590c } .any { stroke: #ff922b; fill: #ff922b }
.causal { stroke: #74c0fc; fill: #74c0fc } }
text.onasked { fill: #fff }
"""
UNITS = ("goal", "obs₀", "act₀", "obs₁", "act₁", "obs₂", "act₂", "obs₃")
ASKS = {
    "any_order": "whatever is hidden: every unit with probability p",
    "causal": "the next action: imitation",
    "prefix": "later observations, from the first step",
    "suffix": "a random set, and all from a random point on",
    "forward": "the next observation: a world model",
    "inverse": "the actions between observations",
    "goal": "what it was for",
}
SEEDS = {"any_order": 10, "causal": 2, "suffix": 13, "forward": 2, "inverse": 6}
"""Of the draws that are shown: those with something to see."""


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def text(x: float, y: float, words: str, classes: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{classes}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, classes: str) -> str:
    size = f'width="{width:g}" height="{height:g}" rx="{min(3, width / 8):g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} class="{classes}"/>'


def episode(num_steps: int = 3) -> Tokenised:
    """goal, observation, action, ..., observation: a token of frame and one of text each."""
    kinds = [Kind.GOAL, Kind.OBSERVATION, *[Kind.ACTION, Kind.OBSERVATION] * num_steps]
    steps = [0, 0, *np.repeat(np.arange(num_steps), 2) + np.tile([0, 1], num_steps)]
    slots_L = np.stack([np.full(len(kinds), -1), np.arange(len(kinds))], 1).ravel()
    return Tokenised(
        tokens_L=np.arange(len(slots_L), dtype=np.int32),
        field_L=np.where(slots_L < 0, Field.FRAME, Field.TEXT).astype(np.int8),
        slots_GL=np.tile(slots_L.astype(np.int32), (4, 1)),
        kind_U=np.array(kinds, np.int8),
        step_U=np.array(steps, np.int32),
        is_expert_U=np.ones(len(kinds), bool),
    )


def masks() -> str:
    """A row an order: what one draw hides of an episode, and what it asks."""
    example, parts, left, wide = episode(), [], 96, 58
    for row, order in enumerate(ORDERS):
        y = 14 + 34 * row
        config = MaskingConfig(order=order, causal_step="any")  # "last" would leave nothing to hide behind the action
        hidden = AnyOrderMaskSampler(config)(np.random.default_rng(SEEDS.get(order, 0)), example)
        parts.append(text(0, y + 17, order, "mono"))
        for unit, name in enumerate(UNITS):
            place = 2 * unit + 1
            what = "asked" if hidden.is_target_L[place] else "hidden" if hidden.is_hidden_L[place] else "seen"
            x = left + unit * wide
            parts.append(box(x, y, wide - 6, 25, what))
            parts.append(text(x + (wide - 6) / 2, y + 17, name, f"middle small {'onasked' if what == 'asked' else ''}"))
        parts.append(text(left + 8 * wide + 10, y + 17, ASKS[order], "small"))
    y = 14 + 34 * len(ORDERS) + 8
    for number, (what, words) in enumerate(
        (("seen", "seen"), ("asked", "hidden and asked"), ("hidden", "hidden, not asked"))
    ):
        x = left + 165 * number
        parts += [box(x, y, 25, 16, what), text(x + 33, y + 13, words, "small")]
    return svg(880, y + 24, "What every order hides of a trajectory, and what it asks", parts)


def context_rows() -> str:
    """Three examples of one long episode: the units that fit a budget, and where the example ends."""
    names = ("system", "goal", "obs₀", "act₀", "obs₁", "act₁", "obs₂", "act₂", "obs₃", "act₃")
    kinds = [Kind.SYSTEM, Kind.GOAL, *[Kind.OBSERVATION, Kind.ACTION] * 4]
    steps = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    widths = [14, 8, 16, 6, 20, 6, 12, 6, 16, 6]
    lengths = contexts.UnitLengths(*(np.array(array) for array in (kinds, steps, widths)))
    parts, left, scale = [], 80, 6.0
    for row, end in enumerate((5, 7, 9)):
        shown = set(contexts.choose(lengths, end, budget=64).tolist())
        y = 14 + 40 * row
        parts.append(text(0, y + 17, f"ends at {names[end]}", "small"))
        x = float(left)
        for unit, width in enumerate(widths[: end + 1]):
            classes = "asked" if unit == end else "seen" if unit in shown else "hidden"
            parts.append(box(x, y, width * scale - 5, 25, classes))
            size = f"middle small {'onasked' if unit == end else ''}"
            parts.append(text(x + (width * scale - 5) / 2, y + 17, names[unit], size))
            x += width * scale
    y = 14 + 40 * 3 + 4
    words = (
        ("seen", "in the example"),
        ("asked", "where it ends"),
        ("hidden", "left out: over the budget of 64 tokens"),
    )
    for number, (what, word) in enumerate(words):
        x = left + 170 * number
        parts += [box(x, y, 25, 16, what), text(x + 33, y + 13, word, "small")]
    return svg(780, y + 24, "Which units an example shows within a budget of tokens", parts)


def objectives() -> str:
    """Two squares: who attends to whom in packed rows of `full`, and in [noisy ; clean] of `block_diffusion`."""
    ids = jnp.array([[1] * 5 + [2] * 6 + [0]])
    packed = np.array(can_attend(Segments(ids), 1, 12)[0])
    blocks = np.array(can_attend(BlockDiffusion(4), 1, 24)[0])
    parts = []
    for x, cell, allowed, title, below in (
        (20, 20, packed, "full: two examples and padding in a row", "each token sees its own example, both ways"),
        (320, 10, blocks, "block_diffusion: [noisy ; clean], blocks of 4", "noisy: its block, and earlier clean ones"),
    ):
        parts.append(text(x, 16, title, "small"))
        for (query, key), is_seen in np.ndenumerate(allowed):
            parts.append(box(x + key * cell, 28 + query * cell, cell - 1.5, cell - 1.5, "asked" if is_seen else "seen"))
        parts.append(text(x, 288, below, "small"))
    parts.append(text(20, 308, "rows: who looks; columns: what is looked at", "small"))
    return svg(600, 318, "Who attends to whom", parts)


def demonstrations() -> str:
    """Greedy success by training seed over the number of demonstrations, causal beside any-order."""
    found = json.loads((ROOT / "experiments" / "data.json").read_text(encoding="utf-8"))["table"]
    left, top, width, height, parts = 60, 30, 440, 200, []
    numbers = (100, 300, 1000, 3000, 10000)

    def at(number: float, share: float) -> tuple[float, float]:
        x = left + width * (math.log10(number) - 2) / 2
        return x, top + height * (1 - (share - 0.5) / 0.5)

    for share in (0.5, 0.75, 1.0):
        _, y = at(100, share)
        parts.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(text(left - 8, y + 4, f"{share:.0%}", "end small"))
    for number in numbers:
        parts.append(text(at(number, 0.5)[0], top + height + 20, f"{number:,}", "middle small"))
    parts.append(text(left + width, top + height + 40, "demonstrations", "end small"))
    for order, color, shift in (("any-order", "any", -3), ("causal", "causal", 3)):
        means = [(number, found[f"{order} {number}"]["greedy success"]) for number in numbers]
        line = " ".join("{:.1f},{:.1f}".format(*at(number, entry["mean"])) for number, entry in means)
        parts.append(f'<polyline class="line {color}" style="fill:none" points="{line}"/>')
        for number, entry in means:
            for value in entry["values"]:
                x, y = at(number, value)
                parts.append(f'<circle class="{color}" cx="{x + shift:.1f}" cy="{y:.1f}" r="3.5"/>')
    for number, (name, color) in enumerate((("any-order", "any"), ("causal", "causal"))):
        x = left + 110 * number
        parts += [f'<circle class="{color}" cx="{x + 5}" cy="12" r="4"/>', text(x + 16, 16, name, "small")]
    parts.append(text(left + 230, 16, "lines: means; dots: three training seeds", "small"))
    return svg(540, top + height + 50, "Greedy success on GoToObj over demonstrations", parts)


def conditionals() -> str:
    """A heat-map: rows are what was trained, columns what is asked; the stronger, the more nats above the best."""
    found = json.loads((ROOT / "experiments" / "conditionals.json").read_text(encoding="utf-8"))["heatmap"]
    left, top, wide, high, parts = 190, 26, 74, 28, []
    for column, question in enumerate(found["columns"]):
        parts.append(text(left + column * wide + wide / 2, 18, question, "middle small"))
    for row, (name, values) in enumerate(zip(found["rows"], found["relative"], strict=True)):
        y = top + row * high
        parts.append(text(0, y + 19, name, "small"))
        for column, value in enumerate(values):
            x, share = left + column * wide, min(1.0, math.log10(1 + 30 * value) / 2)
            parts.append(f'<g opacity="{0.04 + 0.96 * share:.2f}">{box(x, y, wide - 4, high - 4, "asked")}</g>')
            classes = "middle small onasked" if share > 0.55 else "middle small"
            parts.append(text(x + wide / 2 - 2, y + 17, f"{value:.1f}" if value >= 10 else f"{value:.3f}", classes))
    height = top + len(found["rows"]) * high + 24
    parts.append(text(left, height - 8, "nats per hidden token above the column's best; means of five seeds", "small"))
    return svg(left + len(found["columns"]) * wide, height, "What each recipe knows of each question", parts)


FIGURES = {
    "masks": masks,
    "contexts": context_rows,
    "objectives": objectives,
    "demonstrations": demonstrations,
    "conditionals": conditionals,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where one would change")
    options = parser.parse_args()
    changed = []
    for name, draw in FIGURES.items():
        path, drawn = FOLDER / f"{name}.svg", draw()
        if not path.is_file() or path.read_text(encoding="utf-8") != drawn:
            changed.append(path)
            if not options.check:
                path.write_text(drawn, encoding="utf-8")
    print("\n".join(f"{path.name}: {'would change' if options.check else 'written'}" for path in changed) or "as drawn")
    sys.exit(1 if options.check and changed else 0)


if __name__ == "__main__":
    main()
