"""Nothing is reported to anybody when OpenVINO is looked for or loaded."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptwright.infer import openvino

_ASK = "from gptwright.infer import openvino; print(openvino.available())"


def _run(script: str, *places: str) -> str:
    # Not where a continuous integration runs: openvino-telemetry keeps still there by itself.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment["PYTHONPATH"] = os.pathsep.join([*places, *sys.path])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


def test_packages_when_they_would_report_their_import_get_a_stub_instead(tmp_path: Path) -> None:
    told = tmp_path / "told"
    telemetry, package, genai = (tmp_path / name for name in ("openvino_telemetry", "openvino", "openvino_genai"))
    for folder in (telemetry, package, genai):
        folder.mkdir()
    (telemetry / "__init__.py").write_text(f"open({str(told)!r}, 'w').close()")
    # As openvino/tools/ovc/__init__.py does.
    (package / "__init__.py").write_text("try:\n    import openvino_telemetry\nexcept ImportError:\n    pass\n")
    (genai / "__init__.py").write_text("import openvino\n")
    assert _run("import openvino_genai; print('loaded')", str(tmp_path)) == "loaded"
    assert told.exists()  # it does report when it is asked for as it comes
    told.unlink()
    assert _run(_ASK, str(tmp_path)) == "True"
    assert not told.exists()


@pytest.mark.skipif(importlib.util.find_spec("openvino_genai") is None, reason="OpenVINO GenAI is not installed")
def test_openvino_when_it_is_loaded_for_real_opens_no_connection() -> None:
    script = (
        "import sys, socket, threading, time\n"
        "def refuse(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'): print('connects', args)\n"
        "sys.addaudithook(refuse)\n" + _ASK + "\ntime.sleep(1)\n"
        "print(sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__)"
    )
    assert _run(script).splitlines() == ["True", "openvino.tools.ovc.telemetry_stub"]


def test_available_when_it_is_not_installed_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not openvino.available()
