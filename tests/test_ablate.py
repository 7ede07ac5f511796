"""A suite: every run once, resumable, compared with intervals over seeds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from anyorder_jax import ablate
from anyorder_jax.evaluation import comparison, results
from anyorder_jax.evaluation import suite as suites
from anyorder_jax.statistics import student_interval
from small_run import LISTENING, SMALL

ROOT = Path(__file__).parents[1]


def report(value):
    return {
        "acting": {"model/greedy": {"success": {"value": value}}},
        "world_model": {"any_order@0.5": {"model": {"nll_per_cell": {"value": 1 - value}}}},
    }


def test_student_interval_is_the_textbook_one():
    mean, low, high = student_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert mean == 3.0 and abs(high - low - 2 * 2.7764451 * np.sqrt(2.5 / 5)) < 1e-6
    assert student_interval(np.array([2.0])) == pytest.approx((2.0, np.nan, np.nan), nan_ok=True)


def test_compare_means_over_seeds_and_leaves_out_what_is_not_there():
    suite = suites.Suite("?", {"a": (), "b": ()}, (0, 1))
    found = {"a": [report(0.5), report(1.0)], "b": [report(0.0), report(0.0)]}
    found = {name: [results.Run(results.values_of(one), {}) for one in runs] for name, runs in found.items()}
    table = suites.compare(suite, found)
    assert table["a"]["greedy success"]["mean"] == 0.75 and table["a"]["nll/cell p=.5"]["values"] == [0.5, 0.0]
    assert "sampled success" not in table["a"]
    assert suites.not_measured(suite, found) == [
        title for title in suites.MEASURES if title not in ("greedy success", "nll/cell p=.5")
    ]
    lines = comparison._table("trained on", table, list(suite.measures)).splitlines()
    assert lines[0] == "| trained on | greedy success | nll/cell p=.5 |" and "0.000 ± 0.000" in lines[3]


def test_a_suite_with_doubled_seeds_or_names_that_are_no_names_is_refused():
    with pytest.raises(ValueError, match="distinct seeds"):
        suites.Suite("?", {"a": ()}, (0, 0))
    for name in ("1/p", "a, b"):
        with pytest.raises(ValueError, match="without ',' and '/'"):
            suites.Suite("?", {name: ()}, (0, 1))


def run_command(*arguments):
    command = [sys.executable, "-m", "anyorder_jax.ablate", *arguments]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_the_command_trains_evaluates_and_does_not_repeat(tmp_path):
    arguments = (*SMALL, f"--config.data.cache_dir={tmp_path}/data")
    suite = tmp_path / "small.py"
    suite.write_text(
        "from anyorder_jax.evaluation.suite import Suite\n"
        f"def get_suite():\n    return Suite('Does it run?', {{'one': {arguments!r}}}, (3,), "
        "('--num_episodes=2', '--modes=greedy', '--num_windows=1'))\n"
    )
    flags = (f"--suite={suite}", f"--output_dir={tmp_path}/out")
    first = run_command(*flags)
    assert first.returncode == 0 and "| one |" in first.stdout, first.stdout + first.stderr
    written = (tmp_path / "out" / "small" / "one" / "3" / "report" / "report.json").stat().st_mtime_ns
    suite.rename(other := tmp_path / "other.py")  # another suite that asks for the same run finds it
    assert run_command(f"--suite={other}", *flags[1:]).returncode == 0
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1
    other.rename(suite)
    table = [json.loads(line) for line in (tmp_path / "out" / "small" / "results.jsonl").read_text().splitlines()]
    (success,) = (r for r in table if r["predictor"] == "model/greedy" and r["measure"] == "success")
    assert success["variant"] == "one" and success["seed"] == 3 and success["question"] == "acting"
    assert f"{success['value']:.3f}" in first.stdout and "Asked of none of these runs: sampled success" in first.stdout
    again = run_command(*flags)
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert (tmp_path / "out" / "small" / "one" / "3" / "report" / "report.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--suite=nowhere.py",), "nowhere.py is no file"), (("--suite=configs/any_order.py",), "no get_suite")],
)
def test_bad_suites(arguments, message):
    result = run_command(*arguments)
    assert result.returncode and message in result.stderr and "Traceback" not in result.stderr


DRIVER = """
import sys
from pathlib import Path
from anyorder_jax import command
command.begin("ablate")
from anyorder_jax import ablate

def commands(suite, variant, seed, directory, workdir):
    yield ["sleeper", f"{folder}/started-{variant}"]

folder = sys.argv[1]
ablate.commands = commands
ablate.write_comparison = lambda *_: "compared"
ablate.INTERRUPT_SECONDS = 1.0
Path(folder, "listening").touch()
sys.argv[1:] = [f"--suite={folder}/suite.py", f"--output_dir={folder}/out", *sys.argv[2:]]
ablate.main()
"""
SLEEPER = "import signal, sys, time, pathlib\n{0}\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(300)\n"
DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN)"


def interrupted(folder, first_line, *arguments, sign="started-*"):
    """(exit status, stderr, variants that were started) of a suite that Ctrl-C ends in its first run, or when another
    file is there (before that the workers of pytest-xdist, which ignore Ctrl-C, have taught it to do so too)."""
    (folder / "sleeper.py").write_text(SLEEPER.format(first_line))
    (folder / "driver.py").write_text(DRIVER)
    (folder / "suite.py").write_text(
        "from anyorder_jax.evaluation.suite import Suite\n"
        "def get_suite():\n    return Suite('?', {n: ('--config=configs/any_order.py', n) for n in 'abc'}, (0,))\n"
    )
    run = subprocess.Popen(
        [*LISTENING, sys.executable, folder / "driver.py", folder, *arguments], start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not list(folder.glob(sign)):
        assert time.monotonic() < end and run.poll() is None, run.communicate()
        time.sleep(0.1)
    time.sleep(0.5)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=15)
    return run.returncode, errors, sorted(path.name[-1] for path in folder.glob("started-*"))


@pytest.mark.parametrize("first_line", ["", DEAF], ids=["runs that end", "a run that does not listen"])
def test_ctrl_c_ends_the_suite(first_line, tmp_path):
    found = interrupted(tmp_path, first_line)
    assert found == (130, "ablate: interrupted; the same command goes on where this one stopped.\n", ["a"])


def test_ctrl_c_ends_the_wait_for_another_suite(tmp_path):
    """Which is at the same run."""
    workdir = ablate.place(suites.Suite("?", {"a": ("--config=configs/any_order.py", "a")}, (0,)), "a", 0,
                           tmp_path / "out" / "suite")  # fmt: skip
    with ablate.alone(workdir, ablate.Runner(tmp_path)):
        code, errors, started = interrupted(tmp_path, "", "--only=a", sign="listening")
    assert (code, started) == (130, []) and "Traceback" not in errors


def test_suites_and_runs_may_be_links_to_other_disks(tmp_path):
    out, disk = tmp_path / "out", tmp_path / "disk"
    for name in ("suite", "runs"):
        (disk / "far" / name).mkdir(parents=True)
        out.mkdir(exist_ok=True)
        (out / name).symlink_to(disk / "far" / name)
    suite = suites.Suite("?", {"a": ("--config=configs/any_order.py",)}, (0,))
    for _ in range(2):
        run = ablate.place(suite, "a", 0, out / "suite")
        assert run.is_dir() and (out / "suite" / "a" / "0").resolve() == run.resolve()
    assert os.listdir(out / "suite" / "a") == ["0"]
