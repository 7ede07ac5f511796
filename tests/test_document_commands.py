"""Every command line in the documents is taken by its command, up to where it would begin to work."""

import argparse
import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from anyorder_jax.evaluation.reuse import configuration
from pages import PAGES, ROOT, commands, read

WITHOUT_SETTINGS = re.compile(r"--config=(?:runs/|(?:configs/)?[A-Z]+(?:\.py)?$)")
"""A run, whose settings stand; or a placeholder."""


class TakenError(Exception):
    """A parser took a command line; what it left over."""


@pytest.fixture
def stopping(monkeypatch):
    """Commands end when their command line has been read."""
    original, inside = argparse.ArgumentParser.parse_known_args, []

    def parse(self, *args, **kwargs):
        inside.append(self)
        try:
            known, rest = original(self, *args, **kwargs)
        finally:
            inside.pop()
        if inside:  # the parser of a verb
            return known, rest
        raise TakenError(rest)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    return monkeypatch


def module_of(words):
    """(the module that `python ...` runs, its arguments)."""
    if words[1] == "-m":
        name = "conversion.__main__" if words[2] == "conversion" else words[2]
        return importlib.import_module(name), words[3:]
    path = ROOT / words[1]
    spec = importlib.util.spec_from_file_location(f"document_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look
    spec.loader.exec_module(module)
    return module, words[2:]


def check_settings(words):
    """`--config=...` and its keys make a configuration, with values that it takes."""
    recipe = next((word for word in words if word.startswith("--config=")), "--config=any_order")
    if not WITHOUT_SETTINGS.match(recipe):
        configuration([recipe, *(word for word in words if word.startswith("--config."))])


def left_over(words, monkeypatch):
    """What a command of ours does not know of its command line."""
    module, arguments = module_of(words)
    source = Path(module.__file__).read_text(encoding="utf-8")
    if flags := re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source):  # absl's: one set for a process
        return [word for word in arguments if word.partition("=")[0].lstrip("-") not in flags]
    if "argparse" not in source:  # it takes no command line
        return arguments
    monkeypatch.setattr(sys, "argv", [words[1], *arguments])
    with pytest.raises(TakenError) as taken:
        module.main()
    return taken.value.args[0]


def check(line, monkeypatch):
    words = shlex.split(re.sub(r"\$[A-Z_]+", "0", line), comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in ("|", ">", "&&")), len(words))]
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file()
    elif words[0] == "pip":
        known = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
        named = [re.fullmatch(r"(?:\.|anyorder-jax)\[([\w,-]+)\]", word) for word in words[2:]]
        assert {name for match in named if match for name in match[1].split(",")} <= set(known)
    elif "--help" in words:
        assert importlib.util.find_spec(words[2])
    elif words[2:3] not in (["pytest"], ["mkdocs"]):
        rest = left_over(words, monkeypatch)
        assert all(word.startswith("--config") for word in rest), rest
        if any(word.startswith("--config") for word in words):
            check_settings(words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_taken(page, stopping):
    for line in commands(page):
        try:
            check(line, stopping)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{page}: {line}: {error!r}") from error


@pytest.mark.parametrize(
    "line",
    [
        "python -m anyorder_jax.evaluate --checkpoint=x --colour=red",
        "python -m anyorder_jax.evaluate",
        "python -m anyorder_jax.train --config=nothing",
        "python -m anyorder_jax.train --config=any_order --colour=red",
        "python -m anyorder_jax.train --config=any_order --config.masking.ratio=0.3",
        "python -m anyorder_jax.fit --config=any_order --target=h200x1 --config.masking.rate=3",
        "python -m conversion merge --input=x",
        "python -m benchmarks.none",
        "python benchmarks/faults.py --shorter",
        "bash launch/nothing.sh",
        "pip install -e '.[nothing]'",
    ],
)
def test_a_command_that_is_not_there_is_found(line, stopping):
    with pytest.raises((Exception, SystemExit)):
        check(line, stopping)
