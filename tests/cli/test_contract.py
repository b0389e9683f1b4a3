"""The contract of the command line: options of every verb, help, exit codes, one JSON value on stdout, no tracebacks."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

COMMON = {"--project", "--json", "--quiet", "--set"}


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb with its path, such as ("data", "add")."""
    if hasattr(node, "commands"):
        for name, child in node.commands.items():
            yield from commands(child, (*path, name))
    else:
        yield path, node


def all_verbs() -> dict[str, Any]:
    from gptwright.cli.main import app

    return {" ".join(path): command for path, command in commands(typer.main.get_command(app))}


VERBS = all_verbs()


@pytest.mark.parametrize("verb", VERBS)
def test_verb_when_listed_then_has_the_four_common_options(verb: str) -> None:
    options = {option for parameter in VERBS[verb].params for option in parameter.opts}
    assert options >= COMMON


@pytest.mark.parametrize("verb", VERBS)
def test_help_when_asked_then_ends_with_two_examples_of_the_verb(verb: str, gptwright: Any) -> None:
    shown = gptwright(*verb.split(), "--help").ok().out
    lines = [line.strip() for line in shown.rstrip().splitlines()]
    assert lines[-3] == "Examples:"
    assert all(f"gptwright {verb}" in line for line in lines[-2:])
    assert lines[-1] != lines[-2]
    assert max(len(line) for line in shown.splitlines()) <= 100


@pytest.mark.parametrize("verb", VERBS)
def test_examples_when_parsed_then_every_option_in_them_exists(verb: str, gptwright: Any) -> None:
    import shlex

    known = {option for parameter in VERBS[verb].params for option in parameter.opts}
    for line in gptwright(*verb.split(), "--help").out.rstrip().splitlines()[-2:]:
        command = line.rpartition("| ")[2].partition(" > ")[0]
        given = {word.partition("=")[0] for word in shlex.split(command) if word.startswith("-")}
        assert given <= known


def test_verbs_when_listed_then_the_help_shows_each_with_a_whole_sentence(gptwright: Any) -> None:
    from gptwright.cli.main import app

    groups = [
        (),
        *((name,) for name, node in typer.main.get_command(app).commands.items() if hasattr(node, "commands")),
    ]  # type: ignore[attr-defined]
    for group in groups:
        shown = gptwright(*group, "--help").ok().out
        assert "..." not in shown.partition("Commands:")[2], shown
    assert gptwright("runs", "--help").ok().out.count("    gptwright runs ") == 2


# Every verb that ends by itself, on a project that ran; {model}, {run} and {out} are filled in.
CALLS = [
    "status",
    "run",
    "run --dry-run",
    "config show",
    "config check",
    "config explain pretrain.max_time",
    "config schema",
    "doctor",
    "data build",
    "data sample",
    "data why note-01.txt",
    "data licenses",
    "tokenizer train",
    "tokenizer show Hello",
    "pretrain",
    "finetune",
    "runs list",
    "runs show {run}",
    "runs compare {run} {run}",
    "generate Hello --max-tokens 3",
    "generate production Hello --max-tokens 3 --seed 1",
    "chat --max-tokens 3",
    "keys create --name laptop",
    "keys list",
    "keys revoke 1",
    "usage",
    "learn",
    "evaluate --suite heldout",
    "compare production {model}",
    "release list",
    "release show production",
    "release gate {model}",
    "release promote {model}",
    "refresh --if-changed",
    "compliance",
    "export {model} {out}/exported",
    "import {out}/exported --name open",
    "data report",
    "data what-if --set text.too_short=40",
    "data trace path:note-01.txt",
    "data forget path:note-01.txt --basis test --dry-run",
    "data licenses list",
    "data licenses review",
    "data licenses review mine --license CC0-1.0 --note mine",
    "data label --from {out}/labels.jsonl",
    "data export {out}/corpus",
    "data add {project}/data --name other",
    "new {out}/brand-new --template empty",
    "backup {out}/backup.tar.gz",
    "restore {out}/backup.tar.gz --force",
]
REFUSED = [
    "run nonsense",
    "config explain pretrain.max_tme",
    "data add nowhere",
    "data why nothing-like-it",
    "data sample --dropped no.such_rule",
    "data add gopher:nothing",
    "data build --executor slurm",
    "data what-if",
    "data what-if --set no.such_rule=3",
    "data what-if --set text.too_short=many",
    "data trace path:nothing-like-it",
    "data forget path:nothing-like-it --basis x",
    "data licenses review nothing --license MIT",
    "data label --good mine",
    "data label --from nothing.jsonl",
    "data export {project}",
    "runs show nothing",
    "runs compare a b",
    "generate nothing Hello",
    "chat nothing",
    "keys revoke nothing",
    "evaluate nothing",
    "evaluate --suite nothing.jsonl",
    "compare nothing production",
    "release show nothing",
    "release gate nothing",
    "release promote nothing",
    "release rollback",
    "import nothing.gguf",
    "import package:nothing-of-that-name",
    "export nothing {out}/x",
    "export production {out}/x --to zip",
    "restore nothing.tar.gz",
    "pretrain --resume",
    "pretrain --depth many",
    "pretrain --set pretrain.max_stps=3",
    "status --set nonsense",
    "finetune --data nothing.jsonl",
    "finetune --base nothing",
    "serve --port 99999",
    "new {project}",
    "new {out}/x --template nothing",
    "learn nothing",
    "plan --budget much",
    "status --nonsense",
    "status too many words",
    "nonsense",
]


@pytest.fixture(scope="module")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("contract") / "tiny"
    shutil.copytree(finished, target)
    rows = [{"text": f"A good text about the river, number {i}.", "label": "good"} for i in range(12)]
    rows += [{"text": f"buy cheap {i} now now now", "label": "bad"} for i in range(12)]
    (target.parent / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return target


@pytest.fixture(scope="module")
def names(project: Path, gptwright: Any) -> dict[str, str]:
    runs = gptwright("runs", "list", "--project", str(project), "--json").ok().json["runs"]
    releases = gptwright("release", "list", "--project", str(project), "--json").ok().json["releases"]
    run = next(run["id"] for run in runs if run["stage"] == "pretrain")
    return {"run": run, "model": releases[0]["model"], "out": str(project.parent), "project": str(project)}


def asked(line: str, names: dict[str, str], *more: str) -> list[str]:
    words = line.format(**names).split()
    place = [] if words[0] in ("doctor", "new", "nonsense") else ["--project", names["project"]]
    return [*words, *place, *more]


@pytest.mark.parametrize("line", CALLS)
def test_json_when_a_verb_succeeds_then_stdout_is_one_value(line: str, names: dict[str, str], gptwright: Any) -> None:
    done = gptwright(*asked(line, names, "--json"), stdin="Hello!\n").ok()
    assert json.loads(done.out) is not None


@pytest.mark.parametrize("line", CALLS)
def test_text_when_a_verb_succeeds_then_fits_a_terminal(line: str, names: dict[str, str], gptwright: Any) -> None:
    words = asked(line, names)
    if line.startswith(("export", "new")):
        words[2 if line.startswith("export") else 1] += "-again"
    if line.startswith("data export"):
        words[2] += "-again"
    if line.startswith("data add"):
        words[words.index("other")] = "another"
    if line.startswith("keys revoke"):
        words[2] = str(gptwright(*asked("keys create --name other", names, "--json")).json["id"])
    done = gptwright(*words, stdin="Hello!\n").ok()
    assert done.out.strip()
    if not line.startswith(("config schema", "generate", "chat", "data sample", "run", "evaluate")):
        wide = [part for part in done.out.splitlines() if len(part) > 100 and str(names["out"]) not in part]
        assert not wide


@pytest.mark.parametrize("line", REFUSED)
def test_json_when_a_verb_fails_then_stdout_is_one_error_and_stderr_says_it(
    line: str, names: dict[str, str], gptwright: Any
) -> None:
    done = gptwright(*asked(line, names, "--json"))
    error = json.loads(done.out)["error"]
    assert (done.code, error["exit_code"]) == (2, 2)
    assert error["message"]
    assert error["message"].splitlines()[0] in done.err
    assert "Traceback" not in done.err
    assert "our fault" not in done.err


@pytest.mark.parametrize("line", REFUSED)
def test_text_when_a_verb_fails_then_stdout_is_empty(line: str, names: dict[str, str], gptwright: Any) -> None:
    done = gptwright(*asked(line, names))
    assert done.code == 2
    assert done.out == ""


@pytest.mark.slow
def test_plan_when_asked_in_a_project_then_json_is_one_value_and_text_fits(project: Path, gptwright: Any) -> None:
    # Once with this machine measured, once for a rented one: ten seconds of measuring are enough.
    assert gptwright("plan", "--device", "h100", "--json", "--project", str(project)).ok().json["corpus_bytes"] > 0
    text = gptwright("plan", "--budget", "1m", "--project", str(project)).ok().out
    assert max(len(line) for line in text.splitlines()) <= 100


def test_quiet_when_asked_then_stderr_stays_empty(project: Path, gptwright: Any) -> None:
    done = gptwright("run", "evaluate", "--force", "--quiet", "--project", str(project)).ok()
    assert done.err == ""


def test_faults_of_ours_when_they_happen_then_exit_one_without_traceback(
    project: Path, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptwright.project.project import Project

    def broken(_: Project) -> None:
        raise ZeroDivisionError("here")

    monkeypatch.delenv("GPTWRIGHT_TRACEBACK", raising=False)
    monkeypatch.setattr(Project, "status", broken)
    done = gptwright("status", "--json", "--project", str(project))
    assert done.code == 1
    assert json.loads(done.out)["error"]["exit_code"] == 1
    assert "our fault" in done.err
    assert "Traceback" not in done.err


def test_interrupt_when_a_verb_is_stopped_then_exit_130(
    project: Path, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptwright.project.project import Project

    def stopped(_: Project) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Project, "status", stopped)
    done = gptwright("status", "--project", str(project))
    assert (done.code, done.out) == (130, "")


def test_module_when_run_as_python_m_then_it_is_the_command(gptwright: Any) -> None:
    done = gptwright.alone("--version").ok()
    assert done.out.startswith("gptwright ")


def test_reader_when_it_leaves_early_then_no_complaint(project: Path, gptwright: Any) -> None:
    import subprocess

    line = [sys.executable, "-m", "gptwright", "config", "schema"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=gptwright.environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_licenses_when_asked_without_more_then_they_are_listed(names: dict[str, str], gptwright: Any) -> None:
    assert gptwright(*asked("data licenses", names)).ok().out == gptwright(*asked("data licenses list", names)).ok().out


def test_licenses_when_the_text_was_tokenized_then_tokens_are_counted(names: dict[str, str], gptwright: Any) -> None:
    rows = gptwright(*asked("data licenses", names), "--json").ok().json["licenses"]
    made = gptwright(*asked("data build", names), "--json").ok().json
    assert sum(row["bytes"] for row in rows) == made["bytes"]
    assert all(0 < row["tokens"] <= row["bytes"] for row in rows)


def test_licenses_when_one_is_not_allowed_then_it_refuses_with_names_and_amounts(
    names: dict[str, str], gptwright: Any
) -> None:
    done = gptwright(*asked("data licenses --allow MIT", names))
    assert done.code == 3
    assert "mine" in done.err
    assert "bytes" in done.err
