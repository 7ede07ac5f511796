"""How far a conversion has come: a bar on a terminal, plain lines in a log."""

import pty
import re

import pytest

from anyorder_jax.pretrained import progress
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


def test_a_terminal_gets_a_bar(monkeypatch):
    outer, inner = pty.openpty()
    with open(inner, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with progress.Progress(4_000_000, "split") as bar:
            bar.update(4_000_000)
    shown = read_all(outer)
    assert "split: 100%" in shown and "4.00M/4.00M" in shown
