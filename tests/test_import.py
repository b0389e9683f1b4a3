"""Starting costs nothing: what is heavy loads when it is first used. Asserted by what was imported, not by the clock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = [
    "torch",
    "pyarrow",
    "transformers",
    "numpy",
    "sqlalchemy",
    "alembic",
    "fastapi",
    "nicegui",
    "rich",
    "tokenizers",
]
PROBE = """
import json, sys
sys.argv = ["gptwright", *{arguments!r}]
if sys.argv[1:]:
    import contextlib, io
    from gptwright.cli.main import main
    with contextlib.redirect_stdout(io.StringIO()):
        code = main()
    assert code == 0, code
else:
    import gptwright
    assert gptwright.__version__
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def loaded_by(*arguments: str) -> list[str]:
    script = PROBE.format(arguments=list(arguments), heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_import_when_alone_then_loads_nothing_heavy() -> None:
    assert loaded_by() == []


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["pretrain", "--help"], ["--version"]])
def test_help_when_asked_then_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(*arguments) == []


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["run"], ["run", "--dry-run"], ["config", "show"], ["config", "check"], ["runs", "list"]],
)
def test_verbs_that_only_look_when_the_project_is_fresh_then_load_nothing_heavy(
    finished: Path, arguments: list[str]
) -> None:
    assert loaded_by(*arguments, "--project", str(finished)) == []


def test_package_when_asked_for_an_unknown_name_then_attribute_error() -> None:
    import gptwright

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gptwright.nothing
    assert {"Project", "load", "Model"} <= set(gptwright.__all__)
    assert all(getattr(gptwright, name) is not None for name in gptwright.__all__)


@pytest.mark.slow
def test_startup_benchmark_when_run_small_then_prints_the_agreed_object() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "startup_vs_python.py"
    line = [sys.executable, str(script), "--json", "--files", "50", "--repeats", "1"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    result = json.loads(done.stdout)
    assert set(result) >= {"name", "ours", "peer", "theirs", "unit", "ratio", "machine"}
    assert done.returncode == (0 if all(result["kept"].values()) else 1)
