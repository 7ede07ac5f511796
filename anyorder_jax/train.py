"""The main job: `python -m anyorder_jax.train --config=any_order [--workdir=runs/x]`; a recipe by name or file.

Collects expert episodes when the configuration names none, trains, and leaves a run directory; what is in it, says
run_directory.py. The same command resumes a run whose directory holds a checkpoint, and reproduces what it would have
done.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("train")  # imports take seconds

import logging as std_logging
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from anyorder_jax import command, paths, process, recipes, terminal
from anyorder_jax.config import freeze_typed, unknown_key
from anyorder_jax.process import say

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A recipe: a file, or the name of one of ours, e.g. any_order or any_order:smoke."
)
DEBUG = flags.DEFINE_bool("debug", False, "Show the whole trace of an error.")
WORKDIR = flags.DEFINE_string("workdir", "", "Run directory; default runs/<recipe>.")
EXTEND = flags.DEFINE_bool("extend", False, "Train a finished run further: train.num_steps may be larger than it was.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; settings look like --config.masking.rate=0.3.")
    if CONFIG.value is None:
        raise app.UsageError(f"Give a recipe: --config=FILE, or a name: {', '.join(recipes.recipes())}.")
    if not DEBUG.value:  # what Orbax's threads report comes out of our calls as well, in one sentence
        logging.set_verbosity(logging.FATAL)
        std_logging.getLogger("asyncio").setLevel(std_logging.CRITICAL)
    file_name, _, _ = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    with process.leave_at_once_on_error(), command.door("train"):
        try:
            workdir = Path(paths.on_disk(WORKDIR.value or f"runs/{Path(file_name).stem}"))
            config = freeze_typed(CONFIG.value)
            from anyorder_jax import flops  # late: what is mistyped is told before the house is loaded
            from anyorder_jax.model import presets
            from anyorder_jax.training.loop import train

            process.prepare(flops.cpu_devices(config, presets.get(config.model.preset)))
            process.join_others()
            is_done = train(config, workdir, is_extending=True) if EXTEND.value else train(config, workdir)
        except (ValueError, FloatingPointError, OSError) as error:  # one sentence for people; the trace with --debug
            if DEBUG.value:
                raise
            sys.exit(f"{type(error).__name__}: {error}")
        except jax.errors.JaxRuntimeError as error:
            if DEBUG.value or not process.is_lost_connection(error):
                raise
            sys.exit(
                f"another process of this run ended ({str(error).splitlines()[0]}). What it printed says why; the same "
                "command goes on from the newest checkpoint."
            )
    if not is_done:
        sys.exit(process.REQUEUE)
    next_command = paths.command("anyorder_jax.evaluate", f"--checkpoint={paths.shown(workdir)}")
    say(f"{paths.shown(workdir)}: done. Next: {next_command}")


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with recipes by name, and a mistyped key, a wrong type or a broken recipe told in one sentence."""
    terminal.accept_any_letter()
    try:
        return app.parse_flags_with_usage(recipes.in_arguments(argv))
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, AttributeError | KeyError) and (told := unknown_key(argv[1:])):
            sys.exit(f"--config: {told}")
        sys.exit(f"--config: {str(error).removeprefix('--config: ')}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
