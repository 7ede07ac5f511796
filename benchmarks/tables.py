"""Tables: the measured tables of the documents, made from the result files.

    python -m benchmarks.tables            # writes them into the documents
    python -m benchmarks.tables --check    # writes nothing; exit status 1 where a document says something else

A table stands between two comments, of which the first (in one line or several) says where it comes from:

    <!-- table: experiments/orders.json rows="greedy success; sampled success" columns="causal; bot" -->

    |  | causal | bot | ...

    <!-- end of table -->

A file under benchmarks/results/ has its command, commit, machine, versions and `rows`, a dictionary each; a file under
experiments/ is a comparison (`anyorder_jax.evaluation.comparison`), whose intervals and p stand there already.

rows, columns   what is shown, in this order, with semicolons between; left out: everything. `name = title` renames
in              the name of one comparison, in a file of several
kind            of a comparison: `measures` (the default: a column a variant), `variants` (a column a measure), `pairs`
                (differences from the first, paired t-test over training seeds), `heatmap`, `curves`
at              a checkpoint on the way (`updates 500`)
measure         of curves: which
where           of rows: `key=value|value; key=value`
caption         a line below, as Pandoc reads it
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("*.md", "docs/**/*.md", "conversion/README.md", "launch/**/*.md")
TABLE = re.compile(r"<!-- table: (.*?) -->\n(.*?)<!-- end of table -->", re.DOTALL)
SHARES = re.compile(r"success|acc\.|sampled$|next cell$|alone$")
"""Measures that are shown as per cent."""


def documents(root: Path = ROOT) -> list[Path]:
    """The project's documents."""
    return sorted({path for pattern in DOCUMENTS for path in root.glob(pattern)})


def filled(text: str, root: Path = ROOT) -> str:
    """A document with its tables made anew.

    Raises:
      ValueError: for a table that cannot be made; says which, and why.
    """

    def made(match: re.Match[str]) -> str:
        try:
            return f"<!-- table: {match[1]} -->\n\n{table(match[1], root)}\n\n<!-- end of table -->"
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(f"<!-- table: {match[1]} -->: {error}") from error

    return TABLE.sub(made, text)


def table(query: str, root: Path = ROOT) -> str:
    """A table in Markdown from what stands in its first comment."""
    file, *words = shlex.split(" ".join(query.split()))
    options = dict(word.split("=", 1) for word in words)
    unknown = set(options) - {"rows", "columns", "in", "kind", "at", "measure", "where", "caption"}
    if unknown:
        raise ValueError(f"unknown option {sorted(unknown)}")
    found = json.loads((root / file).read_text(encoding="utf-8"))
    if "in" in options:
        found = _get(found, options["in"])
    caption = f"\n\nTable: {options['caption']}" if "caption" in options else ""
    if "rows" in found:
        return _rows(found["rows"], options) + caption
    return _of_comparison(found, options) + caption


def _of_comparison(found: dict[str, Any], options: dict[str, str]) -> str:
    if options.get("kind") == "heatmap":
        found = found["heatmap"]
        cells = {
            row: {column: _short(value) for column, value in zip(found["columns"], values, strict=True)}
            for row, values in zip(found["rows"], found["relative"], strict=True)
        }
    elif options.get("kind") == "curves":
        by_disturbance = _get(found["curves"]["measures"], options["measure"])
        name = "success" if "acc" in options["measure"] else options["measure"]
        cells = {
            f"{disturbance} {strength}": {variant: entry(name, one) for variant, one in point.items()}
            for disturbance, points in by_disturbance.items()
            for strength, point in points.items()
        }
    else:
        cells = _compared(found, options)
    return _grid(cells, options, "trained on" if options.get("kind") in ("heatmap", "variants") else "")


def _compared(found: dict[str, Any], options: dict[str, str]) -> dict[str, dict[str, str]]:
    """{measure: {variant: cell}} of a comparison; the other way round for kind=variants."""
    bounds = {} if "at" in options else found.get("bounds", {})
    if "at" in options:
        found = _get(found["equal"], options["at"])
    kind = options.get("kind", "measures")
    if kind == "pairs":
        return {
            title: {name: difference(title, one) for name, one in row.items()} for title, row in found["pairs"].items()
        }
    if kind not in ("measures", "variants"):
        raise ValueError(f"kind={kind}: expected measures, variants, pairs, heatmap or curves")
    table = {name: {title: entry(title, one) for title, one in row.items() if isinstance(one, dict)}
             for name, row in (found["table"] | bounds).items()}  # fmt: skip
    if kind == "variants":
        return table
    titles = dict.fromkeys(title for row in table.values() for title in row)
    return {title: {name: row[title] for name, row in table.items() if title in row} for title in titles}


def entry(title: str, one: dict[str, Any]) -> str:
    """A mean over seeds: ± half of its 95% interval; where that is wide, the values by seed in its place."""
    is_share = SHARES.search(title) is not None
    mean, low, high = one["mean"], one["low"], one["high"]
    half = 0.0 if low is None else (high - low) / 2
    if is_share:
        if half > 0.15:
            return f"{100 * mean:.1f}% ({', '.join(f'{100 * value:.3g}' for value in one['values'])})"
        return f"{100 * mean:.1f}%" + (f" ± {100 * half:.1f}" if half else "")
    if half > abs(mean) / 2:
        return f"{_short(mean)} ({', '.join(f'{value:.3g}' for value in one['values'])})"
    digits = len(_short(mean).partition(".")[2])
    return _short(mean) + (f" ± {half:.{digits}f}" if half else "")


def difference(title: str, one: dict[str, Any]) -> str:
    """A paired difference with its 95% interval and p after Holm; of shares in points."""
    scale, form = (100, "+.1f") if SHARES.search(title) else (1, "+.3f")
    if one["low"] is None:
        return f"{scale * one['value']:{form}}"
    p = one["p_holm"]
    said = "not tested" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    shown = f"{scale * one['value']:{form}} [{scale * one['low']:{form}}, {scale * one['high']:{form}}], {said}"
    return shown.replace("-", "−")


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _grid(cells: dict[str, dict[str, str]], options: dict[str, str], corner: str) -> str:
    rows = _picked(options.get("rows"), list(cells))
    columns = _picked(options.get("columns"), list(dict.fromkeys(name for row in cells.values() for name in row)))
    body = [[title, *(cells[name].get(column, "–") for column in columns)] for name, title in rows.items()]
    return _markdown([[corner, *columns.values()], *body])


def _rows(rows: list[dict[str, Any]], options: dict[str, str]) -> str:
    for condition in filter(None, options.get("where", "").split(";")):
        key, _, values = condition.strip().partition("=")
        rows = [row for row in rows if str(row[key]) in values.split("|")]
        if not rows:
            raise ValueError(f"where={condition}: no row is like that")
    columns = _picked(options.get("columns"), list(dict.fromkeys(key for row in rows for key in row)))
    return _markdown([list(columns.values()), *([_cell(row.get(key, "–")) for key in columns] for row in rows)])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, bool | str):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return str(value) if isinstance(value, int) else f"{round(value, 2):g}" if abs(value) >= 1 else f"{value:.4g}"


def _picked(text: str | None, known: list[str]) -> dict[str, str]:
    """{name: title} of what an option names, or of everything."""
    if text is None:
        return {name: name for name in known}
    found = {}
    for part in text.split(";"):
        name, _, title = (word.strip() for word in part.partition(" = "))
        if name not in known:
            raise ValueError(f"{name!r} is none of {known}")
        found[name] = title or name
    return found


def _get(found: dict[str, Any], name: str) -> Any:
    if name not in found:
        raise ValueError(f"{name!r} is none of {list(found)}")
    return found[name]


def _markdown(rows: list[list[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def changed(root: Path = ROOT) -> dict[Path, str]:
    """{document: what it should be} of those whose tables are not those of the result files."""
    found = {}
    for path in documents(root):
        old = path.read_text(encoding="utf-8")
        try:
            new = filled(old, root)
        except ValueError as error:
            raise ValueError(f"{path.relative_to(root)}: {error}") from error
        if new != old:
            found[path] = new
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a document differs")
    options = parser.parse_args()
    try:
        found = changed()
    except ValueError as error:
        sys.exit(f"tables: {error}")
    for path, text in found.items():
        if not options.check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'differs; run python -m benchmarks.tables' if options.check else 'written'}")
    sys.exit(1 if options.check and found else 0)


if __name__ == "__main__":
    main()
