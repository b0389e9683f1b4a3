"""The wheel holds what the package reads at run time, not only its modules."""

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git would hand over, so that build leftovers cannot help."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--quiet", "-w", str(folder / "out")]
    try:
        import hatchling.build

        assert hatchling.build
        command.append("--no-build-isolation")
    except ImportError:
        pass  # pip fetches it from the package registry
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (built,) = (folder / "out").glob("gptwright-*.whl")
    return built


@pytest.mark.slow
def test_wheel_when_built_then_holds_every_file_of_the_source_tree(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "gptwright").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - inside == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        "gptwright/project/templates/starter.toml",
        "gptwright/project/templates/empty.toml",
        "gptwright/project/templates/adapt.toml",
        "gptwright/py.typed",
        "gptwright/core/migrations/env.py",
        "gptwright/core/migrations/versions/",
        "kernels.cpp",
        "runs.json",
        "licenses.json",
        "gptwright/corpus/recipes/presets/fineweb.toml",
        "gptwright/corpus/recipes/rules/gopher_quality_datatrove.toml",
        "gptwright/corpus/recipes/languages/de.toml",
        "gptwright/corpus/report/style.css",
        "gptwright/corpus/licences/prints.toml",
        "stop_words.txt",
        "licenses/LICENSE",
        "licenses/NOTICE",
    ],
)
def test_wheel_when_built_then_holds_the_data_file(wheel: Path, pattern: str) -> None:
    assert any(pattern in name for name in zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_wheel_when_installed_then_the_command_makes_a_project(wheel: Path, tmp_path: Path) -> None:
    # Without dependencies of its own it borrows this environment's; only gptwright itself comes from the wheel.
    place = tmp_path / "env"
    venv.create(place, system_site_packages=False, with_pip=False)
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = next(place.rglob("site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        capture_output=True,
    )
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    script = (
        f"import sys; sys.path += {borrowed!r}; import gptwright; print(gptwright.__file__);"
        "from gptwright.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [str(python), "-c", script, "new", "made", "--template", "starter"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    assert "chitchat" in (tmp_path / "made" / "gptwright.toml").read_text(encoding="utf-8")
