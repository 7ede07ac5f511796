"""How far a conversion has come: a bar on a terminal, plain lines in a log."""

import pty
import re

import pytest

from anyorder_jax import progress
from terminal import read_all


def test_a_log_gets_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.Progress(4_000_000, "merge") as bar:
        bar.update(1_000_000)
        bar.update(3_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"merge: 25% of 0\.004 GB, \d+ s left", lines[0])
    assert re.fullmatch(r"merge: 0\.004 GB in \d\.\d s", lines[-1])
    with progress.Progress(1, "merge", is_shown=False) as bar:
        bar.update(1)
    with pytest.raises(OSError, match="full"), progress.Progress(4_000_000, "merge") as bar:
        raise OSError("full")
    assert capsys.readouterr().err == ""  # silent when it is told so, and no success is told of a failure


def test_things_are_counted_one_by_one(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with pytest.raises(OSError, match="full"), progress.Progress(5, "collect train", unit="episode") as bar:
        bar.skip(2)  # an earlier call's
        bar.update(1)
        bar.update(1, num_failed=3)
        raise OSError("full")
    first, *others = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"collect train: 1/3 episodes, \d+/s", first)
    assert [line.split(", ")[::2] for line in others] == [["collect train: 2/3 episodes", "3 failed"]] * 2
    with progress.Progress(5, "collect train", unit="episode") as bar:
        bar.skip(5)
    assert capsys.readouterr().err == ""  # nothing was to be done


def test_a_terminal_gets_a_bar(monkeypatch):
    outer, inner = pty.openpty()
    with open(inner, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with progress.Progress(4_000_000, "split") as bar:
            bar.update(4_000_000)
    shown = read_all(outer)
    assert "split: 100%" in shown and "4.00M/4.00M" in shown
