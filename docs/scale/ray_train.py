"""gptwright on a Ray cluster: Ray Train starts the processes and starts them again when a machine is lost.

python docs/scale/ray_train.py /shared/my-gpt --workers 16 --gpu
"""

import argparse
from pathlib import Path
from typing import Any


def work(config: dict[str, Any]) -> None:
    """What every worker does: the project's pretraining, in which they find each other."""
    import gptwright as gw

    gw.Project.open(config["project"]).run(["pretrain"])


def trainer(project: Path, workers: int, gpu: bool) -> Any:
    """The trainer.

    Args:
        project: a folder that all machines see.
        workers: processes, one for each GPU.
        gpu: whether they have one.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        work,
        train_loop_config={"project": str(project)},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            name="gptwright", storage_path=str(project / "ray"), failure_config=FailureConfig(max_failures=20)
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()
    trainer(arguments.project.resolve(), arguments.workers, arguments.gpu).fit()


if __name__ == "__main__":
    main()
