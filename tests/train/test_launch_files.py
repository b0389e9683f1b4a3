"""docs/scale.md and its launch files: what they start is what the command understands, and the forecasts are today's.

To write the table anew: python tests/train/test_launch_files.py
"""

import ast
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from gptwright.plan.scale import as_table, forecast_table

DOCS = Path(__file__).parents[2] / "docs"
SCALE = DOCS / "scale"
_TABLE = re.compile(r"(<!-- forecast table.*?-->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


def parsed(arguments: list[str]) -> Any:
    """A torchrun command line, read by torchrun's own parser."""
    return get_args_parser().parse_args(arguments)


def torchrun_of(script: str) -> list[str]:
    """The words behind torchrun in a shell script, its lines joined."""
    joined = re.sub(r"\\\n\s*", " ", script)
    (line,) = [line for line in joined.splitlines() if "torchrun " in line and not line.lstrip().startswith("#")]
    return line.partition("torchrun ")[2].replace('"', "").removesuffix(" &").split()


def check_starts_pretraining(arguments: list[str], shutdown_s: int) -> Any:
    found = parsed(arguments)
    assert found.module is True
    assert found.training_script == "gptwright"
    assert found.training_script_args[0] == "pretrain"
    assert any(argument.startswith("--project") for argument in found.training_script_args)
    assert int(found.shutdown_timeout) < shutdown_s, "the checkpoint needs less time than the machine is left"
    return found


def test_slurm_file_when_read_then_bash_and_slurm_and_torchrun_understand_it() -> None:
    path = SCALE / "slurm.sbatch"
    text = path.read_text()
    if bash := shutil.which("bash"):
        assert subprocess.run([bash, "-n", str(path)], capture_output=True).returncode == 0
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH")
    )
    first_command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(n < first_command for n, line in enumerate(lines) if line.startswith("#SBATCH")), (
        "later ones are ignored"
    )
    assert directives.keys() == {
        "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal", "requeue", "output",
    }  # fmt: skip
    assert directives["ntasks-per-node"] == "1"  # one torchrun a machine
    assert directives["signal"].startswith("B:TERM@")
    found = check_starts_pretraining(torchrun_of(text), int(directives["signal"].partition("@")[2]))
    assert found.nproc_per_node == directives["gpus-per-node"]
    assert (found.rdzv_backend, found.rdzv_id) == ("c10d", "$SLURM_JOB_ID")


def test_kubernetes_file_when_read_then_is_a_service_and_an_indexed_job_that_fit_together() -> None:
    service, job = yaml.safe_load_all((SCALE / "kubernetes.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert service["spec"]["clusterIP"] == "None"  # in quotes: the word, not nothing
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert pod["restartPolicy"] in ("Never", "OnFailure")
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    assert container["command"] == ["torchrun"]
    found = check_starts_pretraining(container["args"], pod["terminationGracePeriodSeconds"])
    assert int(found.nnodes) == spec["completions"]
    assert int(found.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert found.rdzv_endpoint == f"{job['metadata']['name']}-0.{pod['subdomain']}:29500"
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert found.training_script_args[1].startswith("--project=/work/")


def test_skypilot_file_when_read_then_has_the_fields_and_variables_of_a_task() -> None:
    task = yaml.safe_load((SCALE / "skypilot.yaml").read_text())
    assert set(task) <= {"name", "num_nodes", "resources", "file_mounts", "setup", "run", "envs", "workdir"}
    assert isinstance(task["num_nodes"], int)
    name, _, count = task["resources"]["accelerators"].partition(":")
    assert (name, int(count)) == ("H100", 8)
    variables = set(re.findall(r"\$(SKYPILOT_\w+)", task["run"]))
    assert variables == {"SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NUM_GPUS_PER_NODE", "SKYPILOT_NODE_RANK"}
    words = [w.replace("$SKYPILOT_NODE_RANK", "1") for w in torchrun_of(task["run"])]
    found = check_starts_pretraining(words, 600)
    assert found.training_script_args[-1] in task["file_mounts"]
    assert task["file_mounts"]["/project"]["mode"] in ("MOUNT", "COPY", "MOUNT_CACHED")
    if bash := shutil.which("bash"):
        assert subprocess.run([bash, "-n"], input=task["run"], text=True).returncode == 0


def test_ray_script_when_read_then_its_trainer_has_what_ray_train_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (SCALE / "ray_train.py").read_text()
    module = types.ModuleType("ray_train")
    exec(compile(ast.parse(source), "ray_train.py", "exec"), module.__dict__)
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig
    except ImportError:  # ray[train] needs pandas; without it the names are checked
        FailureConfig = RunConfig = ScalingConfig = TorchConfig = lambda **given: types.SimpleNamespace(**given)
    made: dict[str, Any] = {}
    train = types.ModuleType("ray.train")
    train.FailureConfig, train.RunConfig, train.ScalingConfig = FailureConfig, RunConfig, ScalingConfig  # type: ignore[attr-defined]
    inner = types.ModuleType("ray.train.torch")
    inner.TorchConfig = TorchConfig  # type: ignore[attr-defined]
    inner.TorchTrainer = lambda loop, **given: made.update(loop=loop, **given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray.train", train)
    monkeypatch.setitem(sys.modules, "ray.train.torch", inner)
    module.trainer(Path("/shared/my-gpt"), 16, True)
    assert made["scaling_config"].num_workers == 16
    assert made["scaling_config"].use_gpu is True
    assert made["torch_config"].backend == "cpu:gloo,cuda:nccl"
    assert made["run_config"].failure_config.max_failures > 0
    assert made["train_loop_config"] == {"project": "/shared/my-gpt"}

    opened: list[Any] = []

    class Project:
        @staticmethod
        def open(path: str) -> "Project":
            opened.append(path)
            return Project()

        def run(self, stages: list[str]) -> None:
            opened.append(stages)

    monkeypatch.setattr("gptwright.Project", Project)
    made["loop"](made["train_loop_config"])
    assert opened == ["/shared/my-gpt", ["pretrain"]]


def test_forecasts_in_the_docs_when_compared_with_the_planner_then_are_the_same_and_are_called_forecasts() -> None:
    text = (DOCS / "scale.md").read_text()
    found = _TABLE.search(text)
    assert found is not None
    assert found[2] == as_table(forecast_table())
    rows = found[2].splitlines()[2:]
    assert {row.split("|")[2].split()[0] for row in rows} == {"1", "8", "64"}
    assert "**Forecasts, not measurements**" in text[: found.start()].rpartition("##")[2]


@pytest.mark.parametrize("command", re.findall(r"^torchrun (.+)$", (DOCS / "scale.md").read_text(), re.MULTILINE))
def test_command_in_the_docs_when_read_by_torchrun_then_starts_gptwright(command: str) -> None:
    found = parsed(command.split())
    assert (found.module, found.training_script) == (True, "gptwright")
    assert found.training_script_args in (["pretrain"], ["finetune"])


if __name__ == "__main__":
    page = DOCS / "scale.md"
    table = as_table(forecast_table())
    page.write_text(_TABLE.sub(lambda found: found[1] + table + found[3], page.read_text()))
