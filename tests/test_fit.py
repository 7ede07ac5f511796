"""`fit`: machines by name, traffic from a program's text, the report, and the sentences when there is none."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import checkpoints
from anyorder_jax import fit, fit_evaluation, flops, hardware, hlo, sharding, weights
from anyorder_jax.asking import scorer
from anyorder_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    MaskingConfig,
    MeshConfig,
    ModelSelection,
    TrainConfig,
)
from anyorder_jax.model import presets
from anyorder_jax.training import shape
from small_run import ROOT


@pytest.mark.parametrize(
    ("name", "platform", "count"),
    [
        ("h200x1", "gpu", 1), ("h100x64", "gpu", 64), ("l40sx1", "gpu", 1), ("v5e-64", "tpu", 64), ("v5p-8", "tpu", 4),
        ("cpux8", "cpu", 8),
    ],
)  # fmt: skip
def test_machines_by_name(name, platform, count):
    machine = hardware.target(name)
    assert (machine.hardware.platform, machine.num_devices) == (platform, count)


@pytest.mark.parametrize(("name", "said"), [("h900x1", "unknown machine. Examples"), ("v5e-3", "known: v5e-4, v5e-8")])
def test_other_names_are_refused(name, said):
    with pytest.raises(ValueError, match=said):
        hardware.target(name)


def test_flops_are_those_of_the_published_model():
    """GFLOP a token of mini at 4096: linear 4.73, head 1.93, attention 2.01 (counted by hand from the report)."""
    everything = MaskingConfig(rate=1.0)
    config = Config(data=DataConfig(row_length=4096), model=ModelSelection(preset="llada2_mini"), masking=everything)
    counted = flops.per_token(config, presets.get("llada2_mini"))
    assert counted["linear"] / 1e9 == pytest.approx(4.73, abs=0.01)
    assert counted["head"] / 1e9 == pytest.approx(1.93, abs=0.01)
    assert counted["attention"] / 1e9 == pytest.approx(2.01, abs=0.01)
    twice = dataclasses.replace(config, train=TrainConfig(objective="block_diffusion"))
    # 13.43, without the last layer's routed experts for the clean half
    assert flops.per_token(twice, presets.get("llada2_mini")).total / 1e9 == pytest.approx(13.28, abs=0.01)
    full = dataclasses.replace(config, model=dataclasses.replace(config.model, remat="full"))
    assert flops.computed_per_token(full, presets.get("llada2_mini")) == pytest.approx(
        counted.total + (counted["linear"] + counted["attention"]) / 3
    )


@pytest.mark.parametrize(
    ("masking", "target_share", "expected"),
    [
        ({"rate": 0.3}, 1.0, 0.3),
        ({"rate": 0.3, "rate_max": 0.7}, 1.0, 0.5),
        ({"rate": 0.8, "rate_end": 0.2, "schedule": "linear"}, 1.0, 0.5),
        ({"rate": 0.8, "complementary": True}, 1.0, 0.5),
        ({"rate": 0.8}, 0.6, 0.6),
        ({"rate": 0.3, "rates": "action:2"}, 1.0, 1.0),
        ({"order": "causal"}, 1.0, 1.0),
    ],
)
def test_the_head_and_the_last_experts_count_for_what_is_asked(masking, target_share, expected):
    config = Config(
        data=DataConfig(row_length=4096), masking=MaskingConfig(**masking), loss=LossConfig(target_share=target_share)
    )
    whole = dataclasses.replace(config, masking=MaskingConfig(rate=1.0), loss=LossConfig())
    mini = presets.get("llada2_mini")
    counted, of_all = flops.per_token(config, mini), flops.per_token(whole, mini)
    assert counted["head"] == pytest.approx(expected * of_all["head"])
    experts = 6 * 3 * mini.hidden_size * mini.moe_intermediate_size * mini.num_experts_per_tok
    assert of_all["linear"] - counted["linear"] == pytest.approx((1 - expected) * experts, abs=1)


def test_traffic_of_a_program_with_a_loop(devices):
    """Seven turns of an all-gather of 4 KiB over 4 devices, and one sum over 8: counted as they run."""
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=4), devices)

    def run(x, y):
        def turn(total, _):
            return total + lax.all_gather(jnp.sin(x + total[0]), "fsdp", tiled=True).reshape(4, -1).sum(0), None

        total, _ = lax.scan(turn, jnp.zeros_like(x), None, length=7)
        return total, lax.psum(y, ("data", "fsdp"))

    whole = sharding.replicated(mesh).spec
    program = jax.jit(sharding.on_devices(run, mesh, (whole, whole), (whole, whole)))
    compiled = program.lower(jnp.ones(256), jnp.ones(512)).compile()
    found = hlo.collectives(compiled.as_text())
    assert found == {
        "all-gather": hlo.Traffic(7, 7 * 4096 * 3 / 4),
        "all-reduce": hlo.Traffic(1, 2 * 2048 * 7 / 8),
    }


def test_traffic_of_started_and_scattered_collectives():
    """As GPUs and TPUs write them: split into start and done, groups as an iota, tuples of operands and results."""
    text = """HloModule step
%turn (p: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %start = (bf16[8,16]{1,0}, bf16[64,16]{1,0}) all-gather-start(%x), replica_groups=[2,8]<=[16], dimensions={0}
  %done = bf16[64,16]{1,0} all-gather-done(%start)
  %part = f32[4]{0} reduce-scatter(%y), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}
ENTRY %main (a: bf16[8,16]) -> bf16[8,16] {
  %loop = (s32[], bf16[8,16]) while(%t), condition=%c, body=%turn, backend_config={"known_trip_count":{"n":"3"}}
  %all = (f32[2]{0}, f32[6]{0}) all-reduce(%u, %v), replica_groups={{0,1}}, to_apply=%add
}
"""
    assert hlo.collectives(text) == {
        "all-gather": hlo.Traffic(3, 3 * 2048 * 7 / 8),
        "all-reduce": hlo.Traffic(1, 2 * 32 * 1 / 2),
        "reduce-scatter": hlo.Traffic(3, 3 * 64 * 3 / 4),
    }


@pytest.mark.parametrize(
    ("groups", "share"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", 0),  # each on a host
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", 1 / 2),  # two members on each host
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 1),  # {0,4}, {1,5}, ...: one member on each
        ("replica_groups=[2,4]<=[8]", 0),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", 1),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 0),
        ("replica_groups=mesh['a'=2,'b'=4] {'b','a'}", 1 / 4),
    ],
)
def test_what_leaves_a_host_goes_through_its_members_ports(groups, share):
    text = f"""HloModule step
ENTRY %main (a: bf16[8,16]) -> bf16[8,16] {{
  %g = bf16[64,16]{{1,0}} all-gather(%x), {groups}, dimensions={{0}}
}}
"""
    hosts = hardware.hosts(hardware.target("h100x16"))
    assert hosts == [0] * 8 + [1] * 8 and hardware.hosts(hardware.target("v5p-128")) == []
    (traffic,) = hlo.collectives(text, hosts=[0, 0, 0, 0, 1, 1, 1, 1]).values()
    assert traffic.between_hosts == pytest.approx(share * traffic.bytes) and traffic.bytes > 0
    (alone,) = hlo.collectives(text).values()
    assert alone == hlo.Traffic(1, traffic.bytes)


def test_a_permute_between_hosts_is_all_sent_by_one_port():
    text = """HloModule step
ENTRY %main (a: bf16[8,16]) -> bf16[8,16] {
  %p = bf16[8,16]{1,0} collective-permute(%x), source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
}
"""
    assert hlo.collectives(text, [0, 0, 1, 1]) == {"collective-permute": hlo.Traffic(1, 256, 256)}


def test_a_loop_counts_up_to_its_condition_where_the_compiler_does_not_say():
    """As TPUs write it: the counter is compared with a constant."""
    text = """HloModule step
%turn (p: (s32[], bf16[64,16])) -> (s32[], bf16[64,16]) {
  %all = bf16[64,16]{1,0:T(8,128)} all-gather(%x), replica_groups=[2,8]<=[16], dimensions={0}
}
%is_less (p: (s32[], bf16[64,16])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(5)
  %constant.31 = s32[]{:T(128)} constant(2)
  ROOT %lt.4 = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.3), direction=LT
}
ENTRY %main (a: bf16[64,16]) -> bf16[64,16] {
  %while.1 = (s32[]{:T(128)}, bf16[64,16]{1,0}) while(%t), condition=%is_less, body=%turn, metadata={op_name="while"}
}
"""
    assert hlo.collectives(text) == {"all-gather": hlo.Traffic(5, 5 * 2048 * 7 / 8)}


def test_a_collective_spread_over_a_chain_of_fusions_counts_once():
    line = "bf16[64,16]{1,0} all-gather(%x), replica_groups=[2,8]<=[16], dimensions={0}, frontend_attributes="
    text = f"""HloModule m
%first (x: bf16[8,16]) -> bf16[64,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  ROOT %g = {line}{{chain_id="0"}}
}}
%second (x: bf16[8,16]) -> bf16[64,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  ROOT %g = {line}{{chain_id="0"}}
}}
%other (x: bf16[8,16]) -> bf16[64,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  ROOT %g = {line}{{chain_id="1"}}
}}
ENTRY %main (x: bf16[8,16]) -> bf16[64,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  %a = bf16[64,16]{{1,0}} fusion(%x), kind=kCustom, calls=%first
  %b = bf16[64,16]{{1,0}} fusion(%x), kind=kCustom, calls=%second
  ROOT %c = bf16[64,16]{{1,0}} fusion(%x), kind=kCustom, calls=%other
}}
"""
    assert hlo.collectives(text) == {"all-gather": hlo.Traffic(2, 2 * 2048 * 7 / 8)}


def test_kernels_of_a_program_by_name_and_as_often_as_they_run():
    text = """HloModule step
%turn (p: bf16[8,16]) -> bf16[8,16] {
  %a = bf16[8,16] custom-call(%x), custom_call_target="mosaic_gpu_v2", metadata={op_name="jit(step)/ragged_dot_sm90/f"}
  %b = bf16[8,16] custom-call(%x), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/body"}
  %c = bf16[8,16] custom-call(%x), custom_call_target="__cublas$gemm"
}
ENTRY %main (a: bf16[8,16]) -> bf16[8,16] {
  %loop = bf16[8,16] while(%t), condition=%c, body=%turn, backend_config={"known_trip_count":{"n":"3"}}
  %a = bf16[8,16] custom-call(%x), custom_call_target="mosaic_gpu_v2", metadata={op_name="jit(step)/ragged_dot_sm90/f"}
}
"""
    assert hlo.kernels(text) == {"ragged_dot_sm90": 4, "tpu_custom_call": 3}


def test_rows_that_do_not_split_are_refused(devices):
    config = Config(train=TrainConfig(batch_size=12, accumulation_steps=3))
    with pytest.raises(ValueError, match=r"4 rows in a micro-batch do not split over 8 devices.*multiple of 24"):
        fit.check_rows(config, sharding.make_mesh(config.mesh, devices))


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "anyorder_jax.fit", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_on_eight_pretend_devices():
    """The real step of the default recipe, sharded; the numbers are those that can be counted by hand."""
    done = command("--config=configs/any_order.py", "--target=cpux8", "--config.mesh.data=2", "--config.mesh.fsdp=4")
    assert done.returncode == 0, done.stderr
    assert "mesh data=2 x fsdp=4 x expert=1 x tensor=1" in done.stdout
    assert "1,856 tokens" in done.stdout and "fits" in done.stdout and "all-gather" in done.stdout


TOO_LARGE = {
    "compile_seconds": 1.0, "num_params": 10**9, "mesh": {"data": 1}, "parameters": 2**30, "optimizer": 2**31,
    "frozen": 0, "host": 0, "arguments": 3 * 2**30, "temporaries": 200 * 2**30, "outputs": 0, "collectives": {},
    "kernels": {},
}  # fmt: skip
"""What `compile_step` finds in a program of 203 GiB."""


def test_a_step_that_does_not_fit_names_the_next_knob():
    machine = hardware.target("h200x1")
    text = fit.report(Config(), machine, TOO_LARGE)
    assert "64.00 GiB too much. Next: recompute activations: --config.model.remat=full." in text
    assert not fit.weigh(Config(), machine, TOO_LARGE).is_fitting
    head, _, row = (line.split("|") for line in fit.table("any_order", Config(), machine, TOO_LARGE).splitlines())
    assert len(head) == len(row) and row[1:5] == [" `any_order` ", " h200x1 ", " 1 ", " 8 x 232 "]


def test_a_network_between_hosts_bounds_a_step_of_its_own():
    found = TOO_LARGE | {"collectives": {"all-gather": hlo.Traffic(1, 450e9, 450e9)}}
    seconds = fit.weigh(Config(), hardware.target("h100x16"), found).seconds
    assert seconds["collectives"] == pytest.approx(1) and seconds["network"] == pytest.approx(9)


@pytest.mark.parametrize(
    ("answer", "said", "exit_code"),
    [
        ((TOO_LARGE, 0, ""), ("203.00   of 139.0: DOES NOT FIT", "64.00 GiB too much. Next: "), 1),
        ((None, 1, "RESOURCE_EXHAUSTED: Used 203.00G of 139.00G"), ("DOES NOT FIT (203.00G of 139.00G)", "Next: "), 1),
        ((TOO_LARGE | {"temporaries": 0}, 0, ""), ("3.00   of 139.0: fits",), 0),
    ],
    ids=["measured", "refused", "small"],
)
def test_the_command_exits_1_when_a_step_does_not_fit(monkeypatch, capsys, tmp_path, answer, said, exit_code):
    """Whether the compiler gives the size or gives up."""
    monkeypatch.setattr(fit, "compile_apart", lambda config, machine: answer)
    output = tmp_path / "fit" / "numbers.json"
    arguments = ["fit", "--config=configs/any_order.py", "--target=h200x1", f"--output={output}"]
    assert fit.main(arguments) == exit_code
    if answer[0]:
        written = json.loads(output.read_text())
        assert written["found"]["parameters"] == answer[0]["parameters"] and written["target"] == "h200x1"
        assert written["weighed"]["is_fitting"] == (exit_code == 0)
    printed = capsys.readouterr()
    assert all(part in printed.out + printed.err for part in said)


def gone(*arguments, file=None, **keywords):
    """In the place of `print`: standard output has no reader."""
    if file in (None, sys.stdout):
        raise BrokenPipeError(32, "Broken pipe")


def test_the_numbers_are_written_before_they_are_printed(monkeypatch, tmp_path):
    monkeypatch.setattr(fit, "compile_apart", lambda config, machine: (TOO_LARGE, 0, ""))
    monkeypatch.setattr(fit, "print", gone, raising=False)
    arguments = ["fit", f"--config={ROOT}/configs/any_order.py", "--target=h200x1"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenPipeError):
        fit.main(arguments)
    assert json.loads((tmp_path / "runs/fit/any_order-h200x1.json").read_text())["weighed"]["peak_gib"] == 203


@pytest.mark.parametrize(
    ("code", "text", "said", "exit_code"),
    [
        (-6, "F0000 fusion_util.cc:5028] Check failed: a split", "crashed (signal 6).*Check failed", 3),
        (1, "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Used 70.03G of 15.75G hbm.", r"70.03G of 15.75G", 1),
        (1, "ValueError: config.mesh: no.", r"^config.mesh: no.$", 2),
    ],
)  # fmt: skip
def test_a_compiler_without_an_answer_becomes_a_sentence(code, text, said, exit_code):
    sentence, result = fit.explain_failure(Config(), hardware.target("v5e-4"), code, text)
    assert re.search(said.replace("(signal 6)", r"\(signal 6\)"), sentence) and result == exit_code


def test_wrong_questions_are_told_in_a_sentence():
    done = command("--config=configs/any_order.py", "--target=cpux8", "--config.mesh.data=3")
    assert done.returncode == 2 and "does not lay out 8 device(s)" in done.stderr and "Traceback" not in done.stderr
    done = command("--config=configs/any_order.py", "--target=h2x1")
    assert done.returncode == 2 and "unknown machine" in done.stderr and "Traceback" not in done.stderr


def test_evaluation_is_compiled_for_eight_pretend_devices(tmp_path):
    """The real command: both programs, their numbers in a file, exit code 0."""
    output = tmp_path / "numbers.json"
    done = command(
        "--what=evaluate", "--config=configs/any_order.py", "--target=cpux8", "--config.mesh.data=2",
        "--config.mesh.fsdp=4", "--dtype=int8", "--format=markdown", f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, _, *table = (line.split("|") for line in done.stdout.splitlines())
    assert [line[1:5] for line in table] == [
        [f" `any_order`, {name}, int8 ", " cpux8 ", " data 2 x fsdp 4 ", " 128 x 256 "]
        for name in ("scoring", "filling")
    ]
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["what"] == "evaluate" and written["dtype"] == "int8"
    for name in ("scoring", "filling"):
        found = written["found"][name]
        assert 0 < found["parameters"] < found["arguments"] and written["weighed"][name]["is_fitting"]
    done = command("--config=configs/any_order.py", "--target=cpux8", "--dtype=int8")
    assert done.returncode == 2 and "--dtype: only with --what=evaluate" in done.stderr


def test_no_logits_of_whole_rows_are_compiled(monkeypatch, devices):
    """Mini's vocabulary on a small model: of 8 rows of 1,024 tokens a device all logits are 4.8 GiB."""
    small = dataclasses.replace(
        presets.get("tiny"), vocab_size=157184, num_hidden_layers=2, num_experts=8, n_group=1, topk_group=1
    )
    monkeypatch.setattr(fit_evaluation, "as_published", lambda config: small)
    config = Config(data=DataConfig(row_length=1024), mesh=MeshConfig(data=8))
    logits = 8 * 1024 * small.vocab_size * 4
    found = fit_evaluation.compile_evaluation(config, hardware.target("cpux8"), "")
    assert {name: program["rows"] for name, program in found.items()} == {"scoring": 64, "filling": 64}
    for program in found.values():
        assert program["temporaries"] + program["outputs"] < logits / 4
    weighed = fit_evaluation.weigh(config, hardware.target("cpux8"), found["scoring"])
    assert weighed.tokens == 64 * 1024 and weighed.is_fitting
    monkeypatch.setattr(scorer, "chunk_of", lambda num_rows, length, vocab_size: length)
    mesh = sharding.make_mesh(config.mesh, devices)
    params = weights.shapes_for_inference(config, small, mesh)
    lowered, _ = fit_evaluation._scoring(config, small, mesh, params)
    assert lowered.compile().memory_analysis().temp_size_in_bytes > logits  # what is measured would show


@pytest.mark.parametrize(
    ("answer", "said", "exit_code"),
    [
        ({"temporaries": 200 * 2**30}, "Next: weights in 16 bit: --dtype=bfloat16", 1),
        ({"temporaries": 2**30}, ": fits", 0),
        (None, "DOES NOT FIT (203.00G of 139.00G), says its compiler. Next: weights in 16 bit: --dtype=bfloat16", 1),
    ],
)
def test_evaluation_that_does_not_fit_exits_1(monkeypatch, capsys, tmp_path, answer, said, exit_code):
    more = {"rows": 2, "length": 4096}
    found = answer and dict.fromkeys(("scoring", "filling"), TOO_LARGE | more | answer)
    text = "" if found else "RESOURCE_EXHAUSTED: Used 203.00G of 139.00G"
    monkeypatch.setattr(fit, "compile_apart", lambda config, machine, dtype: (found, 0 if found else 1, text))
    arguments = ["fit", "--what=evaluate", "--config=any_order", "--target=h200x1", f"--output={tmp_path / 'x.json'}"]
    assert fit.main(arguments) == exit_code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err


def test_the_next_knob_of_evaluation():
    narrow = Config(model=ModelSelection(param_dtype="bfloat16", compute_dtype="bfloat16"))
    assert "--dtype=int8" in fit_evaluation.next_knob(narrow, "") == fit_evaluation.next_knob(Config(), "bfloat16")
    assert "more devices" in fit_evaluation.next_knob(Config(), "int8")


COMPILERS = {"h200x1": "jax_cuda13_plugin", "l40sx1": "jax_cuda13_plugin", "v5e-4": "libtpu"}
KERNELS = {
    "h200x1": {"flash_attention_sm90", "ragged_contracting_dim_dot_sm90", "ragged_dot_sm90"},
    "l40sx1": {"none"},  # Ada: what runs everywhere
    "v5e-4": set(),
}
"""Kernels that the compiled step must call, by their names in its text."""


@pytest.mark.parametrize("target", list(COMPILERS))
def test_absent_hardware(target):
    """With the extra: a whole step of a small model compiles, with the machine's kernels. Without: a sentence."""
    arguments = (
        "--config=configs/any_order.py", f"--target={target}", "--config.model.compute_dtype=bfloat16",
        "--config.train.batch_size=4", "--config.data.row_length=256", "--config.mesh.data=1", "--config.mesh.fsdp=-1",
    )  # fmt: skip
    done = command(*arguments)
    if importlib.util.find_spec(COMPILERS[target]) is None:
        assert done.returncode == 2 and "pip install" in done.stderr
    else:
        assert done.returncode == 0, done.stderr[-2000:]
        assert "fits" in done.stdout
        kernels = re.search(r"^kernels: (.*)$", done.stdout, re.MULTILINE)
        assert kernels is not None
        assert KERNELS[target] <= set(re.sub(r" x \d+", "", kernels[1]).split(", "))


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from anyorder_jax import hardware
from anyorder_jax.model import moe

place = jax.sharding.SingleDeviceSharding(hardware.devices(hardware.target("h200x1"))[0])
T, D, E, F, K = 4096, 512, 64, 256, 4
array = lambda shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
def loss(x, weight, gate_up, down, expert, backend):
    return moe.experts(x, expert, weight, gate_up, down, backend=backend)[0].sum()
arrays = (array((T, D)), array((T, K), jnp.float32), array((E, D, 2, F)), array((E, F, D)), array((T, K), jnp.int32))
used = {}
for backend in ("mosaic", "ragged"):
    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)), static_argnums=5)
    used[backend] = grad.lower(*arrays, backend).compile().memory_analysis().temp_size_in_bytes
print(json.dumps(used | {"dense": E * T * K * D * 2}))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="extra fit-gpu")
def test_no_dense_expansion_on_an_h200():
    """Temporaries of the experts' forward and backward pass, compiled for an H200: by `lax.ragged_dot` they hold every
    row for every expert, by Mosaic they do not."""
    environment = {**os.environ, **hardware.environment(hardware.target("h200x1"))}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    used = json.loads(done.stdout.splitlines()[-1])
    assert used["mosaic"] < used["dense"] / 4 and used["ragged"] > used["dense"]


ODD = """
import jax, jax.numpy as jnp
from anyorder_jax import hardware
from anyorder_jax.model import grouped

place = jax.sharding.SingleDeviceSharding(hardware.devices(hardware.target("h200x1"))[0])
array = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
run = lambda x, w, sizes: grouped.grouped_dot(x, w, sizes, backend="mosaic").astype(jnp.float32).sum()
for rows in (1000, 65, 8):
    arrays = array(rows, 192), array(7, 192, 320), array(7, dtype=jnp.int32)
    jax.jit(jax.grad(run, argnums=(0, 1))).lower(*arrays).compile()
    print(rows)
"""


@pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="extra fit-gpu")
def test_experts_take_any_number_of_rows_on_an_h200():
    """Tokamax's gradient refuses 1,000 rows: rows of 125 tokens, eight experts each, could not be trained on."""
    environment = {**os.environ, **hardware.environment(hardware.target("h200x1"))}
    done = subprocess.run([sys.executable, "-c", ODD], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.split() == ["1000", "65", "8"], done.stderr[-2000:]


STACK = """
import json
import jax, jax.numpy as jnp
from anyorder_jax import hardware, sharding, step
from anyorder_jax.config import MeshConfig

mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=4), hardware.devices(hardware.target("v5e-4")))

def layer(x, w):
    w = sharding.constrain(sharding.constrain(w.astype(x.dtype), ("embed", "rank"), mesh), (None, "rank"), mesh)
    return jnp.tanh(x @ w), None

def layers(x, stack):
    return jax.lax.scan(layer, x, sharding.constrain(stack, ("layer", "embed", "rank"), mesh))[0]

x = jax.ShapeDtypeStruct((256, 2048), jnp.bfloat16, sharding=sharding.rows(mesh))
stack = jax.ShapeDtypeStruct((12, 2048, 2048), jnp.float32, sharding=sharding.replicated(mesh))
texts = [jax.jit(layers, compiler_options=o).lower(x, stack).compile().as_text() for o in ({}, step.TPU_OPTIONS)]
print(json.dumps(["bf16[12,512,2048]" in text for text in texts]))
"""


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="extra fit-tpu")
def test_no_stack_is_narrowed_whole_on_a_tpu():
    """Layers' float32 weights, each narrowed in its turn of the loop: left alone the compiler narrows all before it."""
    environment = {**os.environ, **hardware.environment(hardware.target("v5e-4"))}
    done = subprocess.run([sys.executable, "-c", STACK], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [True, False]


def test_what_train_refuses_does_not_fit(tmp_path):
    """The model's shape is found by what `train` asks."""
    checkpoints.write(tmp_path, {**checkpoints.CONFIG, "expert_capacity": 3, "block_size": 4})
    model = ModelSelection(path=str(tmp_path))
    published = shape.as_published(Config(model=model, data=DataConfig(row_length=8)))
    long = DataConfig(row_length=published.max_position_embeddings + 1)
    blocks = TrainConfig(objective="block_diffusion", block_size=3)
    machine = hardware.target("h100x8")
    with pytest.raises(ValueError, match=r"row_length: .* is more than the max_position_embeddings"):
        fit.compile_step(Config(model=model, data=long), machine)
    with pytest.raises(ValueError, match="block_size: expected a multiple of 4"):
        fit.compile_step(Config(model=model, data=DataConfig(row_length=8), train=blocks), machine)
