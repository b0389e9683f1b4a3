"""Releases never change, aliases move whole, and of two at once one wins."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from gptwright.core.control import ControlStore
from gptwright.core.errors import Refused, UserError
from gptwright.release.gate import Check, Verdict
from gptwright.release.registry import PRODUCTION, Registry

GOOD = Verdict(True, (Check("evaluation", True, "fine"),), None)


def against(name):
    return Verdict(True, (), name)


@pytest.fixture
def registry(control, tmp_path):
    found = Registry(control, tmp_path)
    found.place = control.place
    return found


def add(registry, name, verdict=GOOD):
    folder = registry.root / "work" / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(name.encode())
    (folder / "config.json").write_text("{}")
    return registry.candidate(name, f"b2:{name}", f"work/models/{name}", verdict)


def test_promote_then_resolve_gives_the_directory_and_history_the_reason(registry):
    add(registry, "a")
    assert registry.current(PRODUCTION) is None
    move = registry.promote("a")
    assert (move.former, move.reason) == (None, "gate passed")
    assert registry.resolve("production") == registry.root / "work/models/a"
    assert registry.resolve("a") == registry.resolve("production")
    assert registry.aliases() == {"production": "a"}
    assert [row["reason"] for row in registry.history()] == ["gate passed"]
    assert registry.promote("a").reason == "already there"
    assert len(registry.history()) == 1


def test_promote_when_the_gate_failed_then_refused_with_reasons_unless_overridden(registry):
    add(registry, "bad", Verdict(False, (Check("bits per byte", False, "9.0, at most 2"),), None))
    with pytest.raises(Refused, match="bits per byte: 9.0, at most 2"):
        registry.promote("bad")
    assert registry.aliases() == {}
    assert registry.promote("bad", "demo for the board").reason == "override: demo for the board"
    assert registry.history()[0]["reason"] == "override: demo for the board"


def test_promote_when_a_file_changed_then_refused_by_name_even_with_override(registry):
    add(registry, "a")
    folder = registry.root / "work/models/a"
    (folder / "README.md").write_text("a card compiled later is no change")
    registry.promote("a")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[0] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(Refused, match=r"model\.safetensors was changed"):
        registry.promote("a", "please")
    (folder / "model.safetensors").unlink()
    (folder / "new.json").write_text("{}")
    with pytest.raises(Refused, match=r"model\.safetensors is missing, new\.json was added"):
        registry.promote("a")


def test_candidate_twice_then_renews_the_verdict_but_never_the_weights(registry):
    add(registry, "a", Verdict(False, (Check("evaluation", False, "none"),), None))
    add(registry, "a", GOOD)
    assert registry.release("a").verdict["passed"]
    assert len(registry.releases()) == 1
    with pytest.raises(Refused, match="other weights"):
        registry.candidate("a", "b2:other", "work/models/a", GOOD)
    (registry.root / "work/models/a/config.json").write_text('{"x": 1}')
    with pytest.raises(Refused, match=r"config\.json was changed"):
        registry.candidate("a", "b2:a", "work/models/a", GOOD)


def test_rollback_then_goes_back_step_by_step_and_stops_at_the_first(registry):
    for name, former in (("a", None), ("b", "a"), ("c", "b")):
        add(registry, name, against(former))
        registry.promote(name)
    assert registry.rollback("answers are odd").model_id == "b"
    assert registry.rollback().model_id == "a"
    with pytest.raises(UserError, match="no former model"):
        registry.rollback()
    add(registry, "d", against("a"))
    registry.promote("d")
    assert registry.rollback().model_id == "a"
    assert [row["model_id"] for row in registry.history()] == ["a", "b", "c", "b", "a", "d", "a"]
    assert registry.history()[3]["reason"] == "rollback: answers are odd"


def test_rollback_when_the_former_model_is_damaged_then_refused_and_production_stays(registry):
    add(registry, "a")
    registry.promote("a")
    add(registry, "b", against("a"))
    registry.promote("b")
    (registry.root / "work/models/a/model.safetensors").write_bytes(b"broken")
    with pytest.raises(Refused, match="a is not what was registered"):
        registry.rollback()
    assert registry.aliases() == {"production": "b"}


def test_promote_when_production_moved_since_the_gate_then_refused(registry):
    add(registry, "a")
    add(registry, "b", against(None))
    registry.promote("a")
    with pytest.raises(Refused, match="compared with nothing, but production is a now"):
        registry.promote("b")
    assert registry.promote("b", alias="canary").model_id == "b"


def test_resolve_of_nothing_known_then_user_error_lists_what_is(registry):
    add(registry, "a")
    with pytest.raises(UserError, match="no release or alias zzz.*a"):
        registry.resolve("zzz")
    with pytest.raises(UserError, match="no candidate zzz"):
        registry.promote("zzz")


def test_registry_when_imported_then_torch_is_not():
    code = "import sys, gptwright.release.registry, gptwright.release.refresh; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def _race(place: str | Path, root: str, name: str, together, results) -> None:
    store = ControlStore.open(place)
    registry = Registry(store, Path(root))
    together.wait(60)
    try:
        registry.promote(name)
        results.put((name, "won"))
    except Refused as error:
        results.put((name, str(error)))
    finally:
        store.close()


@pytest.mark.slow
def test_promote_by_several_processes_at_once_then_exactly_one_wins(registry):
    names = ["a", "b", "c", "d"]
    for name in names:
        add(registry, name)
    context = multiprocessing.get_context("spawn")
    together, results = context.Barrier(len(names)), context.Queue()
    processes = [
        context.Process(target=_race, args=(registry.place, str(registry.root), name, together, results))
        for name in names
    ]
    for process in processes:
        process.start()
    outcomes = dict(results.get(timeout=60) for _ in names)
    for process in processes:
        process.join(30)
    winners = [name for name, outcome in outcomes.items() if outcome == "won"]
    assert len(winners) == 1
    assert registry.aliases() == {"production": winners[0]}
    assert [row["model_id"] for row in registry.history()] == winners
    assert all(
        f"production is {winners[0]} now" in outcome for name, outcome in outcomes.items() if name not in winners
    )
