"""Sources: fingerprints that are cheap, packages with their licence."""

import importlib.metadata
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.config import CorpusConfig, SourceConfig
from gptwright.corpus.licences import package_licence, spdx_id
from gptwright.corpus.sources.kinds import fingerprint_sources, list_source


def config(uri: str) -> CorpusConfig:
    return CorpusConfig(sources={"own": SourceConfig(uri=uri)})


def test_fingerprint_when_file_is_added_changed_or_removed_then_it_changes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("one")
    seen = [fingerprint_sources(config("data"), tmp_path)["own"]]
    assert fingerprint_sources(config("data"), tmp_path)["own"] == seen[0]
    (tmp_path / "data" / "a.txt").write_text("three")
    seen.append(fingerprint_sources(config("data"), tmp_path)["own"])
    (tmp_path / "data" / "b.txt").write_text("two")
    seen.append(fingerprint_sources(config("data"), tmp_path)["own"])
    os.utime(tmp_path / "data" / "b.txt", ns=(1, 1))
    seen.append(fingerprint_sources(config("data"), tmp_path)["own"])
    (tmp_path / "data" / "a.txt").unlink()
    seen.append(fingerprint_sources(config("data"), tmp_path)["own"])
    assert len(set(seen)) == 5


def test_fingerprint_when_source_is_missing_then_it_says_so_and_raises_nothing(tmp_path: Path) -> None:
    assert fingerprint_sources(config("nowhere"), tmp_path) == {"own": "missing"}


@pytest.mark.slow
def test_fingerprint_when_there_are_ten_thousand_files_then_it_costs_little_more_than_looking_at_them(
    tmp_path: Path,
) -> None:
    for folder in range(100):
        (tmp_path / "data" / f"{folder}").mkdir(parents=True)
        for file in range(100):
            (tmp_path / "data" / f"{folder}" / f"{file}.txt").touch()

    def look() -> None:
        for folder, _, names in os.walk(tmp_path / "data"):
            for name in names:
                os.stat(os.path.join(folder, name))

    def cost(work: Callable[[], object]) -> float:
        took = []
        for _ in range(3):
            start = time.process_time()
            work()
            took.append(time.process_time() - start)
        return min(took)

    # Twice as much was measured. Both grow alike on a slow or busy machine.
    assert cost(lambda: fingerprint_sources(config("data"), tmp_path)) < 10 * cost(look)


def test_package_when_it_has_a_pattern_then_it_matches_with_and_without_the_top_folder(tmp_path: Path) -> None:
    short = list_source("s", SourceConfig(uri="package:chatterbot-corpus/data/english/*.yml"), tmp_path)
    long = list_source(
        "s", SourceConfig(uri="package:chatterbot-corpus/chatterbot_corpus/data/english/*.yml"), tmp_path
    )
    assert [f.locator for f in short.files] == [f.locator for f in long.files]
    assert len(short.files) > 15
    assert all(f.locator.startswith("chatterbot_corpus/data/english/") for f in short.files)


def test_package_when_pattern_holds_alternatives_then_each_is_matched(tmp_path: Path) -> None:
    found = list_source(
        "s", SourceConfig(uri="package:chatterbot-corpus/data/{english,klingon}/{food,ai,nothing}.yml"), tmp_path
    )
    assert [f.locator.removeprefix("chatterbot_corpus/data/") for f in found.files] == [
        "english/ai.yml",
        "english/food.yml",
    ]


def test_package_when_licence_is_in_its_metadata_then_it_is_read_and_the_user_may_overrule(tmp_path: Path) -> None:
    found = list_source("s", SourceConfig(uri="package:chitchat-dataset"), tmp_path)
    assert [f.locator for f in found.files] == ["chitchat_dataset/dataset.json"]
    assert (found.licence.id, found.licence.source) == ("MIT", "package-metadata")
    assert "William Myers" in str(found.licence.attribution)
    said = list_source("s", SourceConfig(uri="package:chitchat-dataset", license="CC0-1.0"), tmp_path).licence
    assert (said.id, said.source, said.confidence) == ("CC0-1.0", "user-asserted", 1.0)


def test_package_when_it_is_not_installed_then_the_pip_line_is_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Run: pip install no-such-package-here"):
        list_source("s", SourceConfig(uri="package:no-such-package-here/x.txt"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "text", "expected"),
    [
        ("License-Expression: Apache-2.0 OR MIT", "", "Apache-2.0 OR MIT"),
        ("License: MIT", "", "MIT"),
        ("License: The MIT License", "", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License", "", "LicenseRef-BSD"),
        (
            "Classifier: License :: OSI Approved :: BSD License",
            "httpx",
            "BSD-3-Clause",
        ),
        ("Classifier: License :: OSI Approved :: Apache Software License", "", "Apache-2.0"),
        ("Summary: x", "pydantic", "MIT"),
        ("Summary: x", "", None),
    ],
)
def test_licence_when_metadata_say_it_in_any_way_then_spdx_is_found(
    tmp_path: Path, fields: str, text: str, expected: str | None
) -> None:
    """``text`` names an installed package whose licence file is taken."""
    if text:
        files = importlib.metadata.files(text) or []
        text = next(f for f in files if f.name.startswith("LICENSE")).read_text()
    info = tmp_path / "demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n{fields}\n")
    (info / "LICENSE").write_text(text)
    (info / "RECORD").write_text("demo-1.0.dist-info/LICENSE,,\n")
    assert package_licence(importlib.metadata.PathDistribution(info)).id == expected


@pytest.mark.parametrize(
    ("name", "spdx"),
    [("GPLv3", "GPL-3.0-only"), ("Apache 2.0", "Apache-2.0"), ("CC0", "CC0-1.0"), ("strange", None)],
)
def test_licence_when_name_is_free_text_then_usual_names_are_known(name: str, spdx: str | None) -> None:
    assert spdx_id(name) == spdx


def test_config_when_source_name_or_uri_is_wrong_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match="source's name"):
        CorpusConfig.model_validate({"sources": {"a/b": {"uri": "x"}}})
    with pytest.raises(ValueError, match="extra"):
        CorpusConfig.model_validate({"sources": {"a": {"uri": "x", "licence": "MIT"}}})
