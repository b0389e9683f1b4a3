"""Training in 2 and 4 processes over gloo: the same losses and the same order of tokens as in one, resumed by other numbers of them, and
stopped, killed, frozen or out of disk in one of them.

Each launch runs a list of jobs (case_distributed.py), since starting processes costs more than the jobs do.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import case_distributed
import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.train.checkpoint import latest_checkpoint, load_checkpoint
from gptwright.train.metrics import read_metrics

SCRIPT = Path(case_distributed.__file__)
STEPS = 12
TOLERANCE = 1e-5
# Every objective, with and without adapters; grpo draws from whole weights, so it has no shards.
CASES = ("pretrain", "packed", "sft-lora", "dpo", "kto", "grpo-kl", "distill")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


def job(case: str, folder: Path, parallel: str, **more: Any) -> dict[str, Any]:
    settings = {"parallel": parallel, **more.pop("settings", {})}
    return {"case": case, "folder": str(folder), "steps": more.pop("steps", STEPS), "settings": settings, **more}


def start(count: int, out: Path, jobs: list[dict[str, Any]]) -> list[subprocess.Popen[bytes]]:
    out.mkdir(parents=True, exist_ok=True)
    (out / "jobs.json").write_text(json.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(count):
        env = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with open(out / f"stderr-{rank}", "wb") as errors:
            call = [sys.executable, str(SCRIPT), str(out), str(out / "jobs.json")]
            processes.append(subprocess.Popen(call, env=env, stderr=errors, stdout=errors))
    return processes


def results(out: Path, count: int) -> list[list[dict[str, Any]]]:
    """By process, then by job."""
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(count)]


def alone(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [case_distributed.run(one, 0) for one in jobs]
    finally:
        torch.set_num_threads(before)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one(place: Path) -> dict[str, dict[str, Any]]:
    """The runs in a single process."""
    jobs = [job(case, place / "one" / case, "auto", steps=8) for case in CASES[1:]]
    jobs.append(job("pretrain", place / "one" / "pretrain", "auto", heldout=True, watch=True))
    jobs.append(job("pretrain", place / "one" / "five", "auto", rows=5, watch=True))
    return dict(zip([*CASES[1:], "pretrain", "five"], alone(jobs), strict=True))


@pytest.fixture(scope="module")
def two(place: Path) -> list[list[dict[str, Any]]]:
    """The runs in two processes; in the last one a process is killed."""
    root, jobs = place / "two", []
    for parallel in ("ddp", "fsdp"):
        jobs += [
            job(c, root / f"{c}-{parallel}", parallel, steps=8)
            for c in CASES[1:]
            if (c, parallel) != ("grpo-kl", "fsdp")
        ]
        jobs.append(
            job("pretrain", root / f"pretrain-{parallel}", parallel, heldout=True, watch=True, shape=parallel == "fsdp")
        )
        # Stopped in the other process, and for one of them begun again by the same number.
        jobs.append(
            job("pretrain", root / f"stopped-{parallel}", parallel, stop=[4, 1], heldout=True, shape=parallel == "fsdp")
        )
        jobs.append(job("pretrain", root / f"again-{parallel}", parallel, stop=[4, 1], heldout=True))
        jobs.append(job("pretrain", root / f"again-{parallel}", parallel, heldout=True))
    small = {"activation_checkpointing": True, "optimizer": "adamw", "checkpoint_async": False}
    jobs.append(job("packed", root / "small", "fsdp", settings=small, steps=8))
    jobs.append(job("pretrain", root / "poisoned", "fsdp", poison=True, settings={"on_nan": "skip"}))
    jobs.append(job("pretrain", root / "timed", "fsdp", steps=None, settings={"max_time": 120, "max_steps": 10}))
    jobs.append(job("pretrain", root / "full", "fsdp", limit=[20_000, 1]))
    jobs.append(job("pretrain", root / "killed", "fsdp", kill=[8, 1]))
    processes = start(2, place / "out2", jobs)
    assert [process.wait(200) for process in processes] == [130, -9], (place / "out2" / "stderr-0").read_text()[-3000:]
    return results(place / "out2", 2)


@pytest.fixture(scope="module")
def four(place: Path, two: object) -> list[list[dict[str, Any]]]:
    """Runs in four processes: two of them go on from two; in the last one a process falls silent."""
    root = place / "two"
    jobs = [
        job("pretrain", place / "four-ddp", "ddp", heldout=True, watch=True),
        job("pretrain", place / "four-fsdp", "fsdp", heldout=True, watch=True),
        job("pretrain", root / "stopped-fsdp", "ddp", stop=[7, 3], heldout=True),
        job("pretrain", root / "stopped-ddp", "fsdp", stop=[7, 0], heldout=True),
        job("pretrain", place / "five", "fsdp", rows=5, watch=True),
        job("pretrain", place / "few", "ddp", rows=3),
        job("pretrain", place / "frozen", "ddp", freeze=[7, 2], settings={"peer_timeout": 3}),
    ]
    processes = start(4, place / "out4", jobs)
    try:
        codes = [process.wait(200) for rank, process in enumerate(processes) if rank != 2]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    assert codes == [130, 130, 130], (place / "out4" / "stderr-0").read_text()[-3000:]
    return results(place / "out4", 4)


def outcome(
    found: list[list[dict[str, Any]]], place: Path, out: str, folder: Path, which: int = 0
) -> list[dict[str, Any]]:
    """Of the job of a folder, by process."""
    jobs = json.loads((place / out / "jobs.json").read_text())
    number = [n for n, one in enumerate(jobs) if one["folder"] == str(folder)][which]
    return [rank[number] for rank in found]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_losses_when_in_two_processes_then_equal_those_of_one(
    case: str, parallel: str, place: Path, one: Any, two: Any
) -> None:
    if (case, parallel) == ("grpo-kl", "fsdp"):
        pytest.skip("draws answers from whole weights")
    expected = losses(place / "one" / case)
    assert losses(place / "two" / f"{case}-{parallel}") == pytest.approx(expected, abs=TOLERANCE)
    assert len(expected) >= 8


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_losses_when_in_four_processes_then_equal_those_of_one(parallel: str, place: Path, one: Any, four: Any) -> None:
    assert losses(place / f"four-{parallel}") == pytest.approx(losses(place / "one" / "pretrain"), abs=TOLERANCE)
    (found, *_) = outcome(four, place, "out4", place / f"four-{parallel}")
    assert found["bpb"] == pytest.approx(one["pretrain"]["bpb"], abs=TOLERANCE)
    assert found["weights"] == pytest.approx(one["pretrain"]["weights"], rel=1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_tokens_when_in_other_numbers_of_processes_then_stand_in_the_same_order(
    parallel: str, place: Path, one: Any, two: Any, four: Any
) -> None:
    whole = one["pretrain"]["rows"]
    for count, found in (
        (2, outcome(two, place, "out2", place / "two" / f"pretrain-{parallel}")),
        (4, outcome(four, place, "out4", place / f"four-{parallel}")),
    ):
        each = 4 // count
        joined = [
            row for step in range(STEPS) for rank in found for row in rank["rows"][step * each : (step + 1) * each]
        ]
        assert joined == whole


def test_batch_when_rows_do_not_divide_by_processes_then_is_split_unevenly_with_the_same_losses(
    place: Path, one: Any, four: Any
) -> None:
    assert losses(place / "five") == pytest.approx(losses(place / "one" / "five"), abs=TOLERANCE)
    rows = [len(rank["rows"]) for rank in outcome(four, place, "out4", place / "five")]
    assert rows == [STEPS, STEPS, STEPS, 2 * STEPS]


def test_batch_when_it_has_fewer_rows_than_processes_then_is_refused_with_what_to_do(place: Path, four: Any) -> None:
    for found in outcome(four, place, "out4", place / "few"):
        assert found["code"] == 2
        assert "a batch has 3 rows, for 4 processes" in found["text"]
        assert "Raise batch_tokens" in found["text"]


def test_run_when_a_signal_reaches_any_process_then_all_stop_after_the_same_step_with_a_checkpoint(
    place: Path, two: Any, four: Any
) -> None:
    root = place / "two"
    for parallel in ("ddp", "fsdp"):
        for found in outcome(two, place, "out2", root / f"stopped-{parallel}"):
            assert (found["error"], found["code"]) == ("Interrupted", 130)
            assert "stopped after step 5 of 12" in found["text"]
    for found in outcome(four, place, "out4", root / "stopped-fsdp"):
        assert "stopped after step 8 of 12" in found["text"]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_run_when_it_goes_from_two_processes_to_four_and_to_one_then_losses_are_those_of_one(
    parallel: str, place: Path, one: Any, four: Any
) -> None:
    folder = place / "two" / f"stopped-{parallel}"
    (found,) = alone([job("pretrain", folder, "auto", heldout=True)])
    assert found["error"] is None
    assert losses(folder) == pytest.approx(losses(place / "one" / "pretrain"), abs=TOLERANCE)
    assert found["bpb"] == pytest.approx(one["pretrain"]["bpb"], abs=TOLERANCE)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_run_when_resumed_by_as_many_processes_then_ends_with_the_same_bits(
    parallel: str, place: Path, two: Any
) -> None:
    root = place / "two"
    assert losses(root / f"again-{parallel}") == losses(root / f"pretrain-{parallel}")
    ends = [
        load_checkpoint(root / f"{name}-{parallel}" / "checkpoints" / f"step-{STEPS:08d}")
        for name in ("again", "pretrain")
    ]
    for a, b in ((ends[0].weights, ends[1].weights), (ends[0].optimizer, ends[1].optimizer)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_replay_when_the_run_had_shards_then_reads_its_checkpoints(place: Path, two: Any) -> None:
    from cases import build

    from gptwright.train.replay import replay

    folder = place / "two" / "pretrain-fsdp"
    case = build("pretrain")
    found = replay(None, case.plan, folder, start=folder / "checkpoints" / "step-00000009")
    assert found.losses == pytest.approx(losses(folder)[9:], abs=TOLERANCE)


def test_shards_when_written_then_hold_no_pickle_and_each_is_smaller_than_the_whole(
    place: Path, one: Any, two: Any
) -> None:
    folder = place / "two" / "pretrain-fsdp" / "checkpoints" / f"step-{STEPS:08d}"
    files = sorted(path.name for path in folder.iterdir())
    assert [name.partition("-model")[0] for name in files] == ["shard-00001", "shard-00002", "state.json"]
    for name in files[:2]:
        data = (folder / name).read_bytes()
        assert data[8:9] == b"{", "a safetensors file begins with the length of its JSON head"
    whole = place / "one" / "pretrain" / "checkpoints" / f"step-{STEPS:08d}"
    size = sum(path.stat().st_size for path in whole.glob("*.safetensors"))
    assert all((folder / name).stat().st_size < 0.65 * size for name in files[:2])


def test_shard_when_a_byte_changed_then_is_named_and_the_checkpoint_before_is_used(
    place: Path, two: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "two" / "pretrain-fsdp" / "checkpoints", tmp_path / "checkpoints")
    (shard,) = (tmp_path / "checkpoints" / f"step-{STEPS:08d}").glob("shard-00002-*")
    data = bytearray(shard.read_bytes())
    data[-20] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=shard.name):
        load_checkpoint(shard.parent)
    found = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == 9
    assert shard.name in capsys.readouterr().err


def test_shard_when_it_is_gone_then_the_checkpoint_is_refused(place: Path, two: Any, tmp_path: Path) -> None:
    step = tmp_path / "step"
    shutil.copytree(place / "two" / "pretrain-fsdp" / "checkpoints" / f"step-{STEPS:08d}", step)
    next(step.glob("shard-00001-*")).unlink()
    with pytest.raises(UserError, match="not a whole checkpoint"):
        load_checkpoint(step)


def test_run_when_blocks_are_recomputed_and_adamw_is_used_then_losses_are_those_of_one(place: Path, two: Any) -> None:
    folder = place / "one" / "small"
    alone([job("packed", folder, "auto", settings={"optimizer": "adamw"}, steps=8)])
    assert losses(place / "two" / "small") == pytest.approx(losses(folder), abs=TOLERANCE)


def test_batch_when_its_loss_is_not_a_number_in_one_process_then_all_pass_it_over(place: Path, two: Any) -> None:
    folder, alike = place / "two" / "poisoned", place / "one" / "poisoned"
    alone([job("pretrain", alike, "auto", poison=True, settings={"on_nan": "skip"})])
    assert losses(folder) == pytest.approx(losses(alike), abs=TOLERANCE)
    events = [(one / "events.jsonl").read_text() for one in (folder, alike)]
    assert json.loads(events[0].splitlines()[0])["kind"] == "step_skipped"
    assert [json.loads(text.splitlines()[0])["step"] for text in events] == [6, 6]


def test_run_when_it_has_a_time_then_all_processes_take_the_steps_that_the_main_one_measured(
    place: Path, two: Any
) -> None:
    for found in outcome(two, place, "out2", place / "two" / "timed"):
        assert found["error"] is None, found
    config = json.loads((place / "two" / "timed" / "config.json").read_text())
    assert config["step_s"] > 0
    assert len(losses(place / "two" / "timed")) == config["schedule"]["steps"] <= 10


def test_run_when_one_process_has_a_full_disk_then_all_say_so_and_no_half_checkpoint_stays(
    place: Path, two: Any
) -> None:
    folder = place / "two" / "full"
    for found in outcome(two, place, "out2", folder):
        assert (found["error"], found["code"]) == ("UserError", 2), found
        assert "the disk is full" in found["text"]
    assert list((folder / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_run_when_a_process_is_killed_or_falls_silent_then_the_others_end_and_one_process_goes_on(
    frozen: bool, place: Path, one: Any, two: Any, request: pytest.FixtureRequest
) -> None:
    if frozen:
        four = request.getfixturevalue("four")
        folder, told = place / "frozen", [rank[-1] for number, rank in enumerate(four) if number != 2]
    else:
        folder, told = place / "two" / "killed", [two[0][-1]]
    for found in told:
        assert (found["error"], found["code"]) == ("PeerLost", 130)
        assert "another process of this run ended or went silent" in found["text"]
    (found,) = alone([job("pretrain", folder, "auto")])
    assert found["error"] is None
    assert losses(folder) == pytest.approx(losses(place / "one" / "pretrain"), abs=TOLERANCE)
