"""Ctrl-C ends every command in one line with status 130, and a reader that is gone ends none."""

import os
import pty
import subprocess
import sys
import time

import pytest

from small_run import LISTENING, ROOT

COMMANDS = (
    "anyorder_jax.train", "anyorder_jax.evaluate", "anyorder_jax.ablate", "anyorder_jax.fit", "anyorder_jax.demo",
    "anyorder_jax.collect", "anyorder_jax.data.join", "anyorder_jax.data.show", "conversion",
)  # fmt: skip


def program(tmp_path, body):
    """A command whose work is `body`."""
    path = tmp_path / "program.py"
    path.write_text(
        "import os, signal, sys, time\nfrom anyorder_jax import command\n"
        "command.begin('train')\n"
        "def interrupt():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(30)\n"
        f"{body}\n",
        encoding="utf-8",
    )
    return [sys.executable, str(path)]


def run(arguments, **settings):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **settings.pop("env", {})}
    return subprocess.run(
        [*LISTENING, *arguments], cwd=ROOT, env=environment, timeout=120,
        **{"capture_output": True, "text": True, **settings},
    )  # fmt: skip


LINE = "train: interrupted; the same command goes on from the newest checkpoint.\n"


@pytest.mark.parametrize(
    "body",
    [
        "interrupt()",  # while it imports
        "with command.door('train'):\n    interrupt()",
        "try:\n    with command.door('train'):\n        interrupt()\nfinally:\n    os.kill(os.getpid(), signal.SIGINT)",
    ],
    ids=["importing", "working", "sent twice at once"],
)
def test_ctrl_c_is_one_line_and_status_130(body, tmp_path):
    done = run(program(tmp_path, body))
    assert (done.returncode, done.stderr) == (130, LINE)


def test_a_second_ctrl_c_does_not_wait_for_what_cleans_up(tmp_path):
    body = (
        "try:\n    interrupt()\nfinally:\n    print('cleaning', flush=True)\n    time.sleep(1.2)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n"
    )
    begin = time.monotonic()
    done = run(program(tmp_path, body))
    assert done.returncode == 130 and "Traceback" not in done.stderr and time.monotonic() - begin < 30


def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path):
    """`nohup command &`: a Ctrl-C in the foreground is not for it."""
    code = "os.kill(os.getpid(), signal.SIGINT)\nprint('still here')"
    arguments = program(tmp_path, code)
    done = run(["bash", "-c", "trap '' INT; exec \"$@\"", "-", *arguments])
    assert done.stdout == "still here\n"


PRINTS = "for i in range(20000):\n    print('± █', i)\nopen(sys.argv[1], 'w').write('all')"


@pytest.mark.parametrize("flags", ["", "-u"])
def test_head_takes_a_line_and_the_rest_is_done_all_the_same(flags, tmp_path):
    python, path = program(tmp_path, PRINTS)
    done = run(["bash", "-c", f"set -o pipefail; {python} {flags} {path} {tmp_path}/written | head -1"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "± █ 0\n", "")
    assert (tmp_path / "written").read_text() == "all"


def test_a_terminal_of_another_encoding_shows_question_marks(tmp_path):
    done = run([*program(tmp_path, PRINTS), str(tmp_path / "written")], env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout.startswith("? ? 0\n"), done.stderr
    assert (tmp_path / "written").read_text() == "all"


def test_a_terminal_that_hung_up_loses_nothing(tmp_path):
    ours, theirs = pty.openpty()
    begun = subprocess.Popen(
        [*program(tmp_path, f"input()\n{PRINTS}"), str(tmp_path / "written")], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=theirs, stderr=theirs, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    begun.communicate(b"\n", timeout=60)
    assert begun.returncode == 0 and (tmp_path / "written").read_text() == "all"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_listens_before_its_imports(name, tmp_path):
    """Interrupted at the first import of something slow; `argparse` stands for it where there is nothing slower."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('jax', 'numpy', 'tqdm', 'conversion.writing') and 'anyorder_jax.command' in sys.modules:\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = run([sys.executable, "-m", name, "--help"], env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode == 130, (done.stdout, done.stderr)
    assert "interrupted" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
