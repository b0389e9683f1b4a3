"""Configuration: every fault at once, each with its place and the nearest name."""

from pathlib import Path

import pytest
from pydantic import Field

from gptwright.core.config import Config, Count, Duration, Size, explain, json_schema, load_config
from gptwright.core.errors import UserError


class Train(Config):
    """How it is trained."""

    max_time: Duration = Field(60.0, gt=0, description="Wall time. Seconds.")
    max_steps: Count = Field(10, gt=0, description="Steps.")
    shard_size: Size = Field(1000, description="Bytes of a shard.")


class Source(Config):
    """One source."""

    uri: str = Field(description="Where it is.")


class Root(Config):
    """All of it."""

    name: str = Field("x", description="Name.")
    train: Train = Field(Train(), description="Training.")
    sources: dict[str, Source] = Field({}, description="By name.")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gptwright.toml"
    path.write_text(text)
    return path


def test_load_when_units_are_given_then_they_become_seconds_bytes_and_counts(tmp_path: Path) -> None:
    config, origins = load_config(
        Root, write(tmp_path, '[train]\nmax_time = "10m"\nmax_steps = 1e6\nshard_size = "64MB"\n')
    )
    assert config.train == Train(max_time=600.0, max_steps=1_000_000, shard_size=64_000_000)
    assert origins["train.max_time"] == "gptwright.toml:2"


def test_load_when_three_keys_are_mistyped_then_one_error_names_all_with_line_and_nearest(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'nam = "a"\n[train]\nmax_tme = "10m"\nmax_steps = "many"\n[sources.web]\nurl = "b"\nuri = "c"\n'
    )
    with pytest.raises(UserError) as caught:
        load_config(Root, path)
    message = str(caught.value)
    assert "4 faults" in message
    assert "nam (gptwright.toml:1): unknown key; did you mean name?" in message
    assert "train.max_tme (gptwright.toml:3): unknown key; did you mean max_time?" in message
    assert "train.max_steps (gptwright.toml:4): not understood: write it like 1e6" in message
    assert "sources.web.url (gptwright.toml:6): unknown key; did you mean uri?" in message


def test_load_when_overridden_then_the_override_wins_and_is_the_origin(tmp_path: Path) -> None:
    config, origins = load_config(Root, write(tmp_path, "[train]\nmax_steps = 5\n"), ["train.max_steps=7", "name=new"])
    assert (config.train.max_steps, config.name) == (7, "new")
    assert origins["train.max_steps"] == origins["name"] == "--set"


class SizeOf(Config):
    """A size, said in one of two ways."""

    depth: int | None = Field(None, description="Blocks.")
    params: Count | None = Field(None, description="Parameters.")

    @classmethod
    def replaces(cls, key: str, value: object) -> tuple[str, ...]:
        return {"depth": ("params",), "params": ("depth",)}.get(key, ())


class Sized(Config):
    """A root with it."""

    model: SizeOf = Field(SizeOf(), description="Its size.")


@pytest.mark.parametrize(("told", "asked"), [("depth = 3", "params=5e6"), ("params = 5e6", "depth=3")])
def test_load_when_an_override_says_in_another_way_what_the_file_says_then_the_override_alone_counts(
    told: str, asked: str, tmp_path: Path
) -> None:
    config, origins = load_config(Sized, write(tmp_path, f"[model]\n{told}\n"), [f"model.{asked}"])
    asked_key = asked.partition("=")[0]
    assert config.model.model_dump(exclude_none=True) == {asked_key: {"params": 5_000_000, "depth": 3}[asked_key]}
    assert origins == {f"model.{asked_key}": "--set"}


def test_load_when_two_overrides_say_the_same_in_two_ways_then_both_reach_the_section(tmp_path: Path) -> None:
    config, _ = load_config(Sized, write(tmp_path, "[model]\ndepth = 1\n"), ["model.depth=3", "model.params=5e6"])
    assert (config.model.depth, config.model.params) == (3, 5_000_000)


def test_load_when_override_has_no_value_then_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="section.key=value"):
        load_config(Root, write(tmp_path, ""), ["train.max_steps"])


def test_load_when_file_is_not_toml_then_the_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gptwright\.toml: not valid TOML: .*line 2"):
        load_config(Root, write(tmp_path, "a = 1\nb = = 2\n"))


def test_explain_when_key_is_below_a_chosen_name_then_its_field_is_found() -> None:
    assert explain(Root, "sources.web.uri") == ("Where it is.", "str", None)
    assert explain(Root, "train.max_time") == ("Wall time. Seconds.", "float", 60.0)
    assert explain(Root, "train") == ("Training.", "table", None)


def test_explain_when_key_is_unknown_then_the_nearest_is_offered() -> None:
    with pytest.raises(UserError, match="Did you mean max_time"):
        explain(Root, "train.max_tim")


def test_json_schema_when_written_then_it_closes_unknown_keys_and_documents_each_field() -> None:
    schema = json_schema(Root)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Train"]["properties"]["max_time"]["description"] == "Wall time. Seconds."


@pytest.mark.parametrize("value", ["inf", "nan", "-inf", '"1e400"', '"1e400h"'])
def test_load_when_a_number_is_not_finite_then_it_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"train.max_time \(gptwright.toml:2\): input should be a finite number"):
        load_config(Root, write(tmp_path, f"[train]\nmax_time = {value}\n"))
    with pytest.raises(UserError, match=r"train.max_steps \(gptwright.toml:2\): input should be a finite number"):
        load_config(Root, write(tmp_path, f"[train]\nmax_steps = {value.replace('h', '')}\n"))
