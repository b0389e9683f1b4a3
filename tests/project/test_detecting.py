"""``gptwright detect``: the project's own mark, found with its own key and tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import UserError
from gptwright.infer.config import Form, GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.project.detecting import detect, moderator
from gptwright.project.models import locate
from gptwright.project.project import Project


def test_text_when_a_marked_model_wrote_it_is_found_by_the_verb(copy: Path, gptwright: Any) -> None:
    (copy / "state" / "watermark.key").unlink(missing_ok=True)  # of a server that another test ran on the original
    project = Project.open(copy)
    with pytest.raises(UserError, match="marked nothing yet"):
        detect(project, "hello", None, 0.001)
    watermark = project.watermark(create=True)
    assert watermark is not None
    with Engine.load(locate(project, None).path) as engine:
        engine.watermark(watermark)
        # A model of a few steps writes broken bytes; letters can be read back as tokens.
        letters = Form(kind="regex", text="[a-z ]{60}")
        settings = GenerationConfig(max_tokens=60, temperature=1.0, seed=2, form=letters)
        text = engine.complete("The", settings).text
    found = gptwright("detect", text, "--project", str(copy), "--json").ok().json
    assert found["verdict"] == "marked", found
    assert found["p_value"] < 0.001
    data, said = detect(project, "Nobody but a person would put these words in this order, I should say.", None, 0.001)
    assert data["verdict"] in ("not_found", "too_short")
    assert "at most 0.001" in said
    with pytest.raises(UserError, match="no share"):
        detect(project, text, None, 0.9)
    key = (copy / "state" / "watermark.key").read_text().strip()
    assert key not in json.dumps(found)


def test_judges_when_the_project_has_its_own_are_used(copy: Path) -> None:
    from gptwright.corpus.quality import train

    project = Project.open(copy)
    assert moderator(project).categories == ("personal-data", "forged-markers", "hidden-characters")
    texts = [f"you stupid fool number {i}" for i in range(30)] + [f"a lovely day number {i} it was" for i in range(30)]
    train(texts, [True] * 30 + [False] * 30, out=copy / "state" / "models" / "toxicity", task="toxicity")
    (copy / "rude.txt").write_text("blast\n")
    ours = moderator(Project.open(copy, overrides=['corpus.quality.lists=["rude.txt"]']))
    assert ours.categories[3:] == ("toxicity", "flagged-words")
    assert "toxicity" in ours.judge("you stupid fool").flagged
    assert ours.judge("a lovely day it was").flagged == frozenset()
    assert ours.judge("oh blast it").scores["flagged-words"] == pytest.approx(1 / 3)
