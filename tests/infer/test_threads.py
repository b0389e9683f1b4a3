"""The number of threads follows what the machine is like now, and is put back after each step."""

import torch

from gptwright.infer.threads import ThreadChooser


def run(chooser: ThreadChooser, cost: dict[int, float], steps: int, rows: int = 1) -> list[int]:
    chosen = []
    for _ in range(steps):
        threads = chooser.choose(rows)
        chooser.record(rows, threads, cost[threads] * rows)
        chosen.append(threads)
    return chosen


def test_threads_when_one_is_faster_settle_on_it_and_follow_a_change() -> None:
    chooser = ThreadChooser(2)
    assert run(chooser, {1: 1.0, 2: 2.0}, 40).count(1) >= 36
    late = run(chooser, {1: 1.0, 2: 0.5}, 120)[-60:]
    assert late.count(2) >= 50


def test_threads_when_batches_differ_are_chosen_apart() -> None:
    chooser = ThreadChooser(4)
    assert chooser.options == [1, 2, 4]
    assert set(run(chooser, {1: 1.0, 2: 2.0, 4: 3.0}, 40, rows=1)[6:]) == {1}
    assert set(run(chooser, {1: 3.0, 2: 2.0, 4: 1.0}, 40, rows=16)[6:]) == {4}


def test_threads_when_a_step_ends_or_fails_are_put_back() -> None:
    before = torch.get_num_threads()
    chooser = ThreadChooser(before + 1)
    for _ in range(6):
        try:
            with chooser.step(1) as threads:
                assert torch.get_num_threads() == threads
                raise ValueError
        except ValueError:
            pass
        assert torch.get_num_threads() == before
