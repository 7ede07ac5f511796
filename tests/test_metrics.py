"""Metrics: what is logged can be read back, no line stands twice, a full disk does not end training."""

import io
import json
import math
import os
import resource
import struct
import sys
import termios
import types
from contextlib import contextmanager

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from anyorder_jax.metrics import RunLogger, read_jsonl
from terminal import read_all


def logger(workdir, **settings):
    settings.setdefault("stream", io.StringIO())
    return RunLogger(workdir, 100, '{"seed": 0}', **settings)


def steps(workdir, name="train"):
    return [line["step"] for line in read_jsonl(workdir / "metrics" / f"{name}.jsonl")]


def events(workdir):
    """Every event of every TensorBoard file, checksums checked."""
    found = []
    for path in sorted((workdir / "metrics").glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            body = data[12 : 12 + length]
            assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
            assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
            found.append(Event.FromString(body))
            data = data[16 + length :]
    return found


def scalars(workdir):
    return [(e.step, v.tag, v.simple_value) for e in events(workdir) for v in e.summary.value]


@contextmanager
def files_of_at_most(num_bytes):
    """Writes past this size fail in the middle, as on a full disk (EFBIG instead of ENOSPC)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_logged_is_read_back(tmp_path):
    log = logger(tmp_path)
    log.log(50, {"loss": jnp.float32(0.1), "nll/action": np.float64(1 / 3), "count": 7})
    log.log(100, {"loss": 0.5})
    log.log_validation(100, {"loss": 0.25})
    log.close()
    first, second = read_jsonl(tmp_path / "metrics" / "train.jsonl")
    assert first == {"step": 50, "loss": float(np.float32(0.1)), "nll/action": 1 / 3, "count": 7}
    assert second == {"step": 100, "loss": 0.5}
    assert read_jsonl(tmp_path / "metrics" / "validation.jsonl") == [{"step": 100, "loss": 0.25}]
    assert scalars(tmp_path) == [
        (50, "train/loss", pytest.approx(0.1)),
        (50, "train/nll/action", pytest.approx(1 / 3)),
        (50, "train/count", 7),
        (100, "train/loss", 0.5),
        (100, "validation/loss", 0.25),
    ]


def test_lines_are_on_disk_before_the_run_ends(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"loss": 1.0})
    assert steps(tmp_path) == [1] and scalars(tmp_path) == [(1, "train/loss", 1.0)]
    log.close()


def test_nonfinite_numbers_are_valid_json(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"loss": math.nan, "up": math.inf, "down": -jnp.inf})
    log.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    (raw,) = (tmp_path / "metrics" / "train.jsonl").read_text().splitlines()
    assert json.loads(raw, parse_constant=refuse) == {
        "step": 1, "loss": "NaN", "up": "Infinity", "down": "-Infinity",
    }  # fmt: skip
    (line,) = read_jsonl(tmp_path / "metrics" / "train.jsonl")
    assert math.isnan(line["loss"]) and line["up"] == math.inf and line["down"] == -math.inf


def test_resume_drops_what_the_interrupted_run_wrote_after_the_checkpoint(tmp_path):
    log = logger(tmp_path)
    for step in range(10, 60, 10):
        log.log(step, {"loss": math.nan if step == 10 else step})
    log.log_validation(25, {"loss": 1.0})
    log.log_validation(50, {"loss": 2.0})
    log.close()
    kept_before = (tmp_path / "metrics" / "train.jsonl").read_text().splitlines()[:3]

    log = logger(tmp_path, first_step=30)
    assert steps(tmp_path) == [10, 20, 30]
    assert (tmp_path / "metrics" / "train.jsonl").read_text().splitlines() == kept_before
    assert steps(tmp_path, "validation") == [25]
    log.log(40, {"loss": 40.0})
    log.close()
    assert steps(tmp_path) == [10, 20, 30, 40]
    assert any(e.session_log.status == SessionLog.START and e.step == 31 for e in events(tmp_path))
    assert not list((tmp_path / "metrics").glob("*.tmp"))


def test_a_fresh_run_starts_empty_files(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"loss": 1.0})
    log.close()
    logger(tmp_path).close()
    assert steps(tmp_path) == []


def test_a_half_written_last_line_is_dropped(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"loss": 1.0})
    log.close()
    path = tmp_path / "metrics" / "train.jsonl"
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')
    assert steps(tmp_path) == [1]
    log = logger(tmp_path, first_step=1)
    log.log(2, {"loss": 2.0})
    log.close()
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("broken", ['{"step": 1', "[1]", '{"loss": 1.0}', "null"])
def test_a_broken_line_is_named(tmp_path, broken):
    path = tmp_path / "metrics" / "train.jsonl"
    path.parent.mkdir()
    path.write_text('{"step": 0}\n' + broken + "\n")
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: expected a JSON object"):
        read_jsonl(path)
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2"):
        logger(tmp_path, first_step=5)


def test_a_disk_that_fills_up_is_said_once_and_later_lines_are_written(tmp_path):
    stream = io.StringIO()
    log = logger(tmp_path, stream=stream)
    log.log(1, {"loss": 1.0})
    size = (tmp_path / "metrics" / "train.jsonl").stat().st_size
    with files_of_at_most(size + 10):
        log.log(2, {"loss": 2.0})
        log.log(3, {"loss": 3.0})
    log.log(4, {"loss": 4.0})
    log.close()
    assert steps(tmp_path) == [1, 4]  # read_jsonl would refuse half a line in the middle
    assert [step for step, _, _ in scalars(tmp_path)] == [1, 4]
    assert stream.getvalue().count("Training goes on") == 1
    assert "step 3/100" in stream.getvalue()


def test_a_full_disk_under_a_file_and_under_the_terminal_log(tmp_path):
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True) as stream:
        log = logger(tmp_path, stream=stream)
        path = tmp_path / "metrics" / "validation.jsonl"
        path.unlink()
        path.symlink_to("/dev/full")
        log.log_validation(1, {"loss": 1.0})
        log.log(2, {"loss": 2.0})
        log.close()
    assert steps(tmp_path) == [2]


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ValueError, match=r"cannot write to .*file/run/metrics.*--workdir"):
        logger(tmp_path / "file" / "run")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(ValueError, match=r"locked.*Permission denied"):
            logger(tmp_path / "locked")


def test_only_the_first_process_writes(tmp_path):
    log = logger(tmp_path, process_index=1)
    log.log(1, {"loss": 1.0})
    log.log_validation(1, {"loss": 1.0})
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [[1.0, 2.0], None, "high"])
def test_a_value_that_is_not_a_number_is_named(tmp_path, value):
    with pytest.raises(ValueError, match="'loss' must be a single number"):
        logger(tmp_path).log(1, {"loss": value})


def test_wandb_asked_for_and_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails, installed or not
    with pytest.raises(ValueError, match=r"anyorder-jax\[wandb\]"):
        logger(tmp_path, wandb_project="project")


class WandbError(Exception):
    """Stands for `wandb.Error`."""


def wandb_that_raises(monkeypatch, name, text, base=WandbError):
    """A W&B whose `init` fails with an error of this name, as its own are called."""
    error = type(name, (base,), {})

    def init(**settings):
        raise error(text)

    module = types.ModuleType("wandb")
    module.init, module.Error = init, WandbError
    monkeypatch.setitem(sys.modules, "wandb", module)


@pytest.mark.parametrize(
    ("name", "base"),
    [("CommError", WandbError), ("WandbServiceConnectionError", WandbError), ("ConnectionResetError", OSError),
     ("WandbCoreNotAvailableError", WandbError), ("MailboxClosedError", Exception)],
)  # fmt: skip
def test_wandb_that_cannot_be_reached_is_told_once_and_training_goes_on(tmp_path, monkeypatch, name, base):
    wandb_that_raises(monkeypatch, name, "timed out\nafter 90 s", base)
    stream = io.StringIO()
    with_logger = logger(tmp_path, wandb_project="project", stream=stream)
    for step in (1, 2):
        with_logger.log(step, {"loss": 1.0})
    with_logger.close()
    assert steps(tmp_path) == [1, 2]
    (line,) = [line for line in stream.getvalue().splitlines() if "W&B" in line]
    assert f"{name}: timed out after 90 s" in line and "Training goes on" in line
    assert all(word in line for word in ("wandb login", "WANDB_MODE=offline", "config.log.wandb_project"))


@pytest.mark.parametrize(
    ("name", "base"), [("UsageError", WandbError), ("AuthenticationError", WandbError), ("BadKey", ValueError)]
)
def test_wandb_that_refuses_is_one_sentence_that_says_what_to_do(tmp_path, monkeypatch, name, base):
    wandb_that_raises(monkeypatch, name, "api_key not configured", base)
    with pytest.raises(ValueError, match=r"'project' .*api_key not configured.*wandb login.*WANDB_MODE=offline.*empty"):
        logger(tmp_path, wandb_project="project")


def test_wandb_that_fails_later_is_told_once(tmp_path, monkeypatch):
    class Run:
        def define_metric(self, *_, **__):
            pass

        def log(self, _):
            raise RuntimeError("the service is gone")

        def finish(self):
            self.log({})

    module = types.ModuleType("wandb")
    module.init = lambda **settings: Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    stream = io.StringIO()
    with_logger = logger(tmp_path, wandb_project="project", stream=stream)
    for step in (1, 2):
        with_logger.log(step, {"loss": 1.0})
    with_logger.close()
    assert steps(tmp_path) == [1, 2] and stream.getvalue().count("the service is gone") == 1


def test_plain_lines_where_there_is_no_terminal(tmp_path):
    stream = io.StringIO()
    log = logger(tmp_path, stream=stream)
    log.log(50, {"loss": 2.25, "tokens_per_second": 12345.6, "targets_per_second": 678.0})
    log.log_validation(50, {"loss": 1.5, "accuracy/action": 0.5})
    log.close()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 50/100  loss 2.2500  12,346 tokens/s  678 targets/s  00:0")
    assert first.endswith("left")
    assert second == "step 50  validation  loss 1.5  accuracy/action 0.5"


@pytest.mark.parametrize("columns", [80, 0])
def test_a_progress_bar_on_a_terminal(tmp_path, monkeypatch, columns):
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    with open(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        log = logger(tmp_path, stream=None, first_step=20)
        log.log(60, {"loss": 2.25, "tokens_per_second": 12345.6, "targets_per_second": 678.0})
        log.log_validation(60, {"loss": 1.5})
        log.close()
        monkeypatch.undo()
    shown = read_all(controller)
    assert "60/100" in shown and "loss 2.2500  12,346 tokens/s  678 targets/s" in shown
    assert "step 60  validation  loss 1.5" in shown
    assert "00:00 left" in shown


def test_close_may_be_called_twice(tmp_path):
    log = logger(tmp_path)
    log.close()
    log.close()
    log.log(1, {"loss": 1.0})
    assert steps(tmp_path) == []
