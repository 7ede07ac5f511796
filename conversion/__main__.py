"""`python -m conversion VERB`: LLaDA2.x checkpoints in and out. `--help` after any verb says more."""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("conversion")  # imports take seconds

import argparse
import gc
import sys
from collections.abc import Sequence

from anyorder_jax import command, paths, terminal
from conversion.writing import MAX_SHARD_BYTES


def _add_download(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "download",
        help="fetch a checkpoint from the Hugging Face Hub",
        description="Fetches weights, config and tokenizer of a LLaDA2.x repository. Run it again to resume. The token "
        "is that of `hf auth login` (or HF_TOKEN), the server that of HF_ENDPOINT.",
    )
    parser.add_argument("--repo_id", required=True, help="for example inclusionAI/LLaDA2.0-mini-preview")
    parser.add_argument("--local_dir", type=paths.typed, required=True, help="directory for the files")
    parser.add_argument("--revision", help="branch, tag or commit (default: the main branch)")
    parser.set_defaults(run=_download)


def _download(args: argparse.Namespace) -> int:
    from conversion.download import download

    download(args.repo_id, args.local_dir, revision=args.revision, is_dry_run=args.dry_run)
    return 0


def _add_experts(verbs: argparse._SubParsersAction, verb: str, layout: str, other: str, purpose: str) -> None:
    parser = verbs.add_parser(
        verb,
        help=f"{other} experts -> {layout} experts ({purpose})",
        description=f"Writes a checkpoint with {other} experts as one with {layout} experts ({purpose}). Bytes are "
        "moved as they are, tokenizer and other files come along, and the output appears only when it is whole.",
    )
    parser.add_argument("--input_path", type=paths.typed, required=True, help=f"directory with a {other} checkpoint")
    parser.add_argument(
        "--output_path", type=paths.typed, required=True, help="new directory (must not hold anything yet)"
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="",
        help="store every tensor in this dtype, expert_bias included (bfloat16 is what dFactory's converter does); "
        "default: each tensor keeps its own",
    )
    parser.add_argument(
        "--max_shard_bytes", type=int, default=MAX_SHARD_BYTES,
        help="largest shard, in bytes of tensors (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--check_nan", action="store_true", help="first read every value and warn of NaN, with the tensor's name"
    )
    parser.set_defaults(run=_convert_experts, layout=layout)


def _convert_experts(args: argparse.Namespace) -> int:
    from conversion.merge import convert

    convert(
        args.input_path,
        args.output_path,
        args.layout,
        dtype=args.dtype,
        max_shard_bytes=args.max_shard_bytes,
        checks_nan=args.check_nan,
        is_dry_run=args.dry_run,
    )
    return 0


def _add_inspect(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "inspect",
        help="what a checkpoint holds, and the memory it needs",
        description="Prints layout, parameters by kind and dtype, missing and unexpected tensors, and the bytes per "
        "device on a mesh. Reads headers only, unless --values is given; the weights of a run are read always, and "
        "compared with the digests that were saved with them. Exit code 1 when something is amiss.",
    )
    parser.add_argument(
        "path", type=paths.typed, help="directory with a split or merged checkpoint, a run, or one of its checkpoints"
    )
    parser.add_argument(
        "--mesh", default="", help="devices per axis, for example data=1,fsdp=4,expert=2 (default: one)"
    )
    parser.add_argument("--values", action="store_true", help="also read every value: norms, and a search for NaN")
    parser.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from conversion.inspection import inspect

    return inspect(args.path, mesh=args.mesh, reads_values=args.values, is_dry_run=args.dry_run)


_MESH_HELP = (
    "devices per axis (data, fsdp, expert, tensor) of the mesh that will read it, for example fsdp=4,expert=2: each "
    "host then reads its own parts only. It opens on any other mesh too. Default: one device"
)


def _add_to_orbax(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "to_orbax",
        help="a checkpoint -> an Orbax checkpoint for train and evaluate",
        description="Writes split or merged experts (recognised by the tensor names) as step 0 of a run directory, "
        "laid out as the model holds them, block by block: no device and little memory is needed.",
    )
    parser.add_argument(
        "--input_path", type=paths.typed, required=True, help="directory with a split or merged checkpoint"
    )
    parser.add_argument(
        "--output_path", type=paths.typed, required=True, help="new run directory (must not hold anything yet)"
    )
    parser.add_argument("--mesh", default="", help=_MESH_HELP)
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="",
        help="of the parameters; default: that of the weights",
    )
    parser.set_defaults(run=_to_orbax)


def _to_orbax(args: argparse.Namespace) -> int:
    from conversion.inspection import parse_mesh
    from conversion.orbax import to_orbax

    mesh = parse_mesh(args.mesh) if args.mesh else {}
    to_orbax(args.input_path, args.output_path, mesh=mesh, dtype=args.dtype, is_dry_run=args.dry_run)
    return 0


def _add_to_hf(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "to_hf",
        help="a run -> a checkpoint for transformers, dFactory, SGLang",
        description="Writes the weights of a run (its newest checkpoint, or the one named) as a model directory: split "
        "experts for servers, merged experts for dFactory. Config, tokenizer and Python files come from the run and "
        "from the model that it started from.",
    )
    parser.add_argument(
        "--checkpoint", type=paths.typed, required=True, help="a run directory, or one of its checkpoints/STEP"
    )
    parser.add_argument(
        "--output_path", type=paths.typed, required=True, help="new directory (must not hold anything yet)"
    )
    parser.add_argument(
        "--layout", required=True, choices=("merged", "split", "adapter"),
        help="how experts are stored; adapter: only the factors of a LoRA run, as a PEFT adapter directory (the others "
        "have them folded in)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="",
        help="store every tensor in this dtype, expert_bias included; default: as the run started, else as it trains",
    )  # fmt: skip
    parser.add_argument(
        "--max_shard_bytes", type=int, default=MAX_SHARD_BYTES,
        help="largest shard, in bytes of tensors (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--with_code", action="store_true",
        help="also write modeling_llada2.py, the model in PyTorch in one file, which AutoModelForCausalLM loads under "
        "transformers 4.57 and 5, and a model card",
    )  # fmt: skip
    parser.set_defaults(run=_to_hf)


def _to_hf(args: argparse.Namespace) -> int:
    if args.layout == "adapter":
        from conversion.adapter import write_adapter

        write_adapter(
            args.checkpoint, args.output_path, dtype=args.dtype, has_code=args.with_code, is_dry_run=args.dry_run
        )
        return 0
    from conversion.orbax import to_hf

    to_hf(
        args.checkpoint,
        args.output_path,
        args.layout,
        dtype=args.dtype,
        max_shard_bytes=args.max_shard_bytes,
        has_code=args.with_code,
        is_dry_run=args.dry_run,
    )
    return 0


def _add_verify(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "verify",
        help="run the model on given arrays and compare",
        description="Runs our model on the arrays of an .npz file (input_ids, noisy_ids, labels, bd_input_ids, "
        "bd_position_ids; what is not there is left out) and writes logits, hidden states, routing, losses and the "
        "norm of every tensor to another. With --against it prints the differences, and the exit code is 1 past the "
        "tolerance.",
    )
    parser.add_argument("--model", type=paths.typed, required=True, help="a split or merged directory, or a run")
    parser.add_argument("--inputs", type=paths.typed, required=True, help=".npz file with the arrays to run on")
    parser.add_argument("--outputs", type=paths.typed, required=True, help=".npz file to write")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    parser.add_argument("--block_size", type=int, default=32, help="of block diffusion (default: %(default)s)")
    parser.add_argument("--against", type=paths.typed, help=".npz file with the expected arrays")
    parser.add_argument(
        "--tolerance", type=float, default=0.0,
        help="of the largest difference (float32) or of the median one (bfloat16); default: each array's own",
    )  # fmt: skip
    parser.add_argument(
        "--gradients", action="store_true",
        help="of a large model too: gradients of both losses and four AdamW steps (float32; a small one always)",
    )  # fmt: skip
    parser.add_argument(
        "--norms", action="store_true", help="also print the norm of every tensor, as stored and as the model holds it"
    )
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from conversion.verify import Checks, verify

    return verify(
        args.model,
        args.inputs,
        args.outputs,
        dtype=args.dtype,
        block_size=args.block_size,
        checks=Checks(args.against, args.tolerance, args.gradients, args.norms),
        is_dry_run=args.dry_run,
    )


def _add_upload(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "upload",
        help="put an exported directory on the Hugging Face Hub",
        description="Commits all files of a model directory (or of a PEFT adapter) to a repository of the Hub, in one "
        "commit, after its headers and settings were checked. The repository is made where there is none. The token is "
        "that of `hf auth login` (or HF_TOKEN), the server that of HF_ENDPOINT.",
    )
    parser.add_argument("path", type=paths.typed, metavar="DIRECTORY", help="what to_hf, merge or split has written")
    parser.add_argument("--repo", required=True, help="NAME or ORGANISATION/NAME")
    parser.add_argument("--private", action="store_true", help="of a repository that is made: seen by its owners only")
    parser.add_argument("--revision", help="an existing branch (default: the main one)")
    parser.set_defaults(run=_upload)


def _upload(args: argparse.Namespace) -> int:
    from conversion.upload import upload

    upload(args.path, args.repo, is_private=args.private, revision=args.revision, is_dry_run=args.dry_run)
    return 0


def _add_doctor(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "doctor",
        help="whether these are the weights of a trained model, and what is wrong",
        description="Reads a checkpoint once, a layer in memory at a time. Compares names, shapes and dtypes with the "
        "config, looks at every weight and expert, asks the model to fill in a built-in text, and tries readings that "
        "undo known faults: one that lowers the loss names the fault. Exit code 0: healthy, 1: not, 2: no checkpoint.",
    )
    parser.add_argument(
        "path", type=paths.typed, help="directory with a split or merged checkpoint, a run, or one of its checkpoints"
    )
    parser.add_argument(
        "--tokenizer", type=paths.typed, default="", help="its directory; default: the checkpoint's own"
    )
    parser.add_argument(
        "--tries", choices=("none", "whole", "layers"), default="",
        help="readings that are tried: the same change in all layers, or also in each alone. Default: layers up to a "
        "billion parameters, else whole on an accelerator and none on a CPU",
    )  # fmt: skip
    parser.add_argument("--json", type=paths.typed, default="", help="also write all that was found to this file")
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from conversion.doctor import doctor

    return doctor(args.path, tokenizer=args.tokenizer, tries=args.tries, json_path=args.json, is_dry_run=args.dry_run)


def _add_average(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "average",
        help="the mean of some checkpoints of a run -> a run",
        description="Writes the mean of the last or best checkpoints of a run (float32 sums, block by block) as a run "
        "directory that evaluate and to_hf take, and train as model.path. It has no optimizer: nothing resumes there.",
    )
    parser.add_argument("--checkpoint", type=paths.typed, required=True, help="a run directory")
    parser.add_argument("--output_path", type=paths.typed, required=True, help="new run directory")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--last", type=int, default=0, help="so many of the newest checkpoints")
    which.add_argument("--best", type=int, default=0, help="so many of those with the lowest validation loss")
    which.add_argument("--steps", default="", help="these: 4000,5000,6000")
    parser.set_defaults(run=_average)


def _average(args: argparse.Namespace) -> int:
    from conversion.average import average

    average(
        args.checkpoint, args.output_path, last=args.last, best=args.best, steps=args.steps, is_dry_run=args.dry_run
    )
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line: one sub-parser a verb."""
    parser = argparse.ArgumentParser(
        prog="python -m conversion",
        description="LLaDA2.x checkpoints in and out, exactly and at the speed of the disk. conversion/README.md shows "
        "the whole way from download to export.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_download(verbs)
    _add_experts(verbs, "merge", "merged", "split", "as dFactory trains them")
    _add_experts(verbs, "split", "split", "merged", "as published, and as servers load them")
    _add_to_orbax(verbs)
    _add_to_hf(verbs)
    _add_verify(verbs)
    _add_inspect(verbs)
    _add_upload(verbs)
    _add_doctor(verbs)
    _add_average(verbs)
    for verb in verbs.choices.values():
        verb.add_argument("--dry_run", action="store_true", help="check everything, say what would be done, do nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; errors for people go to stderr in one line, exit code 2."""
    terminal.accept_any_letter()
    args = make_parser().parse_args(argv)
    command.clean_up_on_signals()
    try:
        with command.door("conversion"):
            return args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    gc.disable()  # what is imported is no garbage: looking for it takes a seventh of the time that importing JAX takes
    status = main()
    gc.freeze()  # nor is it at the end
    sys.exit(status)
