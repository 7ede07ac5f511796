"""The report of the first minutes on a GPU, rehearsed at its smallest; what breaks in it costs only itself."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_report  # noqa: E402
from gpu_parts import kernels, measuring, page, rows, trace  # noqa: E402


def report(*arguments, **environment):
    command = [sys.executable, "benchmarks/gpu_report.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=1500
    )


def ends(record):
    return {row["part"]: row["verdict"] for row in record["rows"] if row["measure"] == "ended"}


def result(folder):
    (path,) = folder.glob("gpu-*.json")
    return json.loads(path.read_text(encoding="utf-8"))


NEEDS = {"babyai": "minigrid", "layer": "torch"}
"""Parts that want an extra; without it they say so and are skipped."""


def test_every_part_runs_to_its_end(tmp_path):
    """What is not skipped passes all its bounds; each part leaves rows of its own; the page names every part."""
    limits = [f"--limit={name}=600" for name in gpu_report.NAMES]
    done = report("--rehearse", f"--out={tmp_path / 'out'}", "--seconds=1400", *limits)
    record = result(tmp_path / "out")
    expected = {
        name: "skipped" if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None else "pass"
        for name in gpu_report.NAMES
    }
    assert ends(record) == expected, done.stdout
    assert done.returncode == 0 and record["card"] == "cpu" and record["commit"] != "unknown"
    for name in gpu_report.NAMES:
        own = [row for row in record["rows"] if row["part"] == name and row["measure"] != "ended"]
        assert own or expected[name] == "skipped", name
        assert f"\n| {name} | {expected[name]} |" in done.stdout
    names = {row["name"] for row in record["rows"] if row["verdict"] == "pass"}
    for words in ("one expert takes all", "empty experts", "block diffusion of packed", "a quarter empty", "golden a"):
        assert any(words in name for name in names), words
    rates = [row for row in record["rows"] if row["unit"] == "TFLOP/s" and row["part"] != "machine"]
    assert rates and all("of the measured bfloat16 peak" in row["note"] for row in rates)


def test_what_breaks_costs_only_itself(tmp_path):
    """One part hangs (with a child), one raises, one is killed, each after its first row: that row is kept, the fourth
    part has all of its rows, and nobody's child is left, which would keep the card's memory."""
    out = tmp_path / "out"
    done = report(
        "--rehearse", f"--out={out}", "--parts=machine,kernels,layer,saving", "--limit=machine=20", "--limit=layer=300",
        "--break=hang:machine", "--break=raise:kernels", "--break=kill:layer", "--seconds=1200",
    )  # fmt: skip
    record = result(out)
    found = ends(record)
    assert found == {"machine": "hung", "kernels": "fail", "layer": "killed", "saving": "pass"}, done.stdout
    counts = {part: sum(row["part"] == part for row in record["rows"]) for part in found}
    assert counts == {"machine": 2, "kernels": 2, "layer": 2, "saving": 5} and done.returncode == 1
    notes = {row["part"]: row["note"] for row in record["rows"] if row["measure"] == "ended"}
    assert notes["machine"].startswith("ended after its 20 s")
    assert "broken on purpose" in notes["kernels"] and "SIGKILL" in notes["layer"]
    assert [path for path in Path("/proc").glob("[0-9]*/environ") if str(out).encode() in _bytes(path)] == []


def _bytes(path):
    try:
        return path.read_bytes()
    except OSError:  # gone, or another user's
        return b""


def test_no_time_left_is_said(tmp_path):
    done = report("--rehearse", f"--out={tmp_path / 'out'}", "--seconds=4", "--parts=machine,saving")
    assert ends(result(tmp_path / "out")) == {"machine": "not started", "saving": "not started"}
    assert "4 s were over" in done.stdout


def test_without_a_card_it_stops_at_once(tmp_path):
    done = report(f"--out={tmp_path / 'out'}", "--parts=machine,step_all", JAX_PLATFORMS="cpu")
    assert ends(result(tmp_path / "out")) == {"machine": "skipped", "step_all": "not started"}
    assert done.returncode == 1 and "JAX sees no GPU here" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parts=machine,kernel"], "unknown part 'kernel'; known: machine, kernels"),
        (["--break=trip:golden"], "expected one of hang, raise, kill"),
        (["--break=hang"], "expected two words around ':'"),
        (["--limit=golden:3"], "expected two words around '='"),
    ],
)
def test_bad_options_are_told(capsys, arguments, said):
    with pytest.raises(SystemExit):
        gpu_report.main(arguments)
    assert said in capsys.readouterr().err


def some_rows(path):
    written = rows.Rows(path, "machine")
    written.add("card", "is", "NVIDIA H200")
    written.add("matrix product bfloat16", "rate", 800.0, "TFLOP/s")
    written = rows.Rows(path, "step_all")
    written.add("mini", "rate", 200.0, "TFLOP/s", note="so")
    written.add("mini | all", "tokens/s", 25_000.0, at_least=20_000)
    written.add("mini", "peak away", math.nan, at_most=0.03)
    with written.attempt("piece"):
        raise ValueError("first line\nsecond")
    return written


def test_rows_pass_or_fail_and_nan_fails(tmp_path):
    assert some_rows(tmp_path / "rows.jsonl").failed == 2
    found = rows.read(tmp_path / "rows.jsonl")
    assert [row["verdict"] for row in found] == ["", "", "", "pass", "fail", "fail"]
    assert found[4]["value"] == "nan" and found[5]["note"] == "ValueError: first line"


def test_the_page_of_a_run_that_was_cut(tmp_path):
    """Rows up to a line that was cut are a page; shares are of the measured peak; the file is filled between marks."""
    path, docs = tmp_path / "rows.jsonl", tmp_path / "gpu.md"
    some_rows(path)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"part": "step_all", "na')
    shutil.copy(ROOT / "docs" / "gpu.md", docs)
    before = docs.read_text(encoding="utf-8").partition(page.BEGIN)[0]
    for _ in range(2):  # again: in place of the first
        gpu_report.main([f"--page={path}", f"--docs={docs}"])
    text = docs.read_text(encoding="utf-8")
    assert text.startswith(before) and text.count(page.BEGIN) == text.count("**NVIDIA H200**") == 1
    assert "| step_all | mini | rate | 200 TFLOP/s |  | 25.0% of the measured bfloat16 peak; so |" in text
    assert "| step_all | mini \\| all | tokens/s | 25,000 | pass (at least 20000) |" in text
    assert "- mini: peak away nan, at most 0.03." in text and text.rstrip().endswith(page.END)


def test_the_committed_page_is_that_of_a_result():
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    results = sorted((ROOT / "benchmarks" / "results").glob("gpu-*.json"))
    assert any(page.text(page.load(path)) in text for path in results)


def test_a_file_that_is_no_result_is_told(tmp_path):
    (tmp_path / "x.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="with `rows`, got list"):
        page.load(tmp_path / "x.json")
    (tmp_path / "x.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="expected the lines"):
        page.fill(tmp_path / "x.md", {"rows": []})


def test_one_wrong_row_shows_in_the_error():
    """Of 10,000 rows one is wrong: the norm hides it, the largest difference does not. NaN is never small."""
    reference = np.random.default_rng(0).standard_normal((10_000, 4))
    found = reference.copy()
    found[1234] = 0
    error = measuring.error_of(found, reference)
    assert error.norm < 0.02 and error.largest > 0.1
    found[0, 0] = np.nan
    name, worst = measuring.worst({"fine": measuring.Error(0.5, 0.5), "nan": measuring.error_of(found, reference)})
    assert name == "nan" and math.isnan(worst.largest) and math.isnan(worst.norm)
    with pytest.raises(ValueError, match="expected shape"):
        measuring.error_of(found[1:], reference)


@pytest.mark.parametrize("kind", ["even", "one expert takes all", "empty experts"])
def test_loads_are_whole_tiles_that_fit(kind):
    sizes = kernels.loads(kind, 8, 1000, np.random.default_rng(0))
    assert sizes.sum() <= 1000 and (sizes % kernels.TILE == 0).all()
    assert (sizes > 0).sum() == {"even": 8, "one expert takes all": 1, "empty experts": 3}[kind]


def test_a_wrong_kernel_fails_by_name(tmp_path, monkeypatch):
    """The product of the second group with the first one's matrix."""
    monkeypatch.setattr(kernels, "grouped_backends", lambda platform: [("ragged", "float32")])
    right = kernels.grouped.grouped_dot
    wrong = lambda x, w, *others: right(x, w.at[1].set(w[0]), *others)  # noqa: E731
    monkeypatch.setattr(kernels.grouped, "grouped_dot", wrong)
    kernels.grouped_ours.clear_cache()
    written = rows.Rows(tmp_path / "rows.jsonl", "kernels")
    kernels.check_grouped(written, measuring.Size(True, tmp_path), "cpu")
    kernels.grouped_ours.clear_cache()
    failed = {row["name"] for row in rows.read(tmp_path / "rows.jsonl") if row["verdict"] == "fail"}
    assert "grouped ragged float32, gate and up, even" in failed


def test_a_trace_without_kernels_is_told(tmp_path):
    with pytest.raises(ValueError, match="names no kernel"):
        trace.device_times(tmp_path, "gpu")
