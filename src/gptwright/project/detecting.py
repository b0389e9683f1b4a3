"""Was it ours: the project's watermark looked for in a text, and the project's own judges of what a text holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.project.models import locate

if TYPE_CHECKING:
    from gptwright.guard.moderation import Moderator, Score
    from gptwright.project.project import Project

_SAYS = {
    "marked": "marked: this project's models wrote it, or a good part of it",
    "not_found": "not found: no sign that this project's models wrote it. Greedy or much edited answers show none either",
    "too_short": "too short: too few words to say whether it is marked",
}


def detect(project: "Project", text: str, model: str | None, false_alarms: float) -> tuple[dict[str, Any], str]:
    """Look for the watermark.

    Args:
        project: whose key.
        text: the words in question.
        model: whose tokenizer reads them; None: production's, else the newest model's.
        false_alarms: share of other texts that may be called marked.

    Returns:
        The numbers, and a sentence.

    Raises:
        UserError: no key was ever made, or there is no such model.
    """
    from gptwright.tokens.tokenizer import Tokenizer

    watermark = project.watermark()
    if watermark is None:
        raise UserError(
            "this project has marked nothing yet: it has no watermark key",
            where=str(project.state / "watermark.key"),
            fix="Answers are marked once gptwright serve runs with [guard] watermark = true",
        )
    if not 0 < false_alarms <= 0.5:
        raise UserError(f"{false_alarms} is no share of false alarms", fix="Give a number above 0 and up to 0.5")
    ref = locate(project, model)
    found = watermark.detect(Tokenizer.load(ref.path).encode(text), false_alarms)
    data = {
        "model": ref.id,
        "verdict": found.verdict,
        "p_value": found.p_value,
        "z": found.z,
        "tokens": found.tokens,
        "scored_tokens": found.scored,
        "max_false_positive_rate": false_alarms,
    }
    numbers = f"z = {found.z:.1f}, p = {found.p_value:.2g}, {found.scored} of {found.tokens} tokens scored"
    return data, f"{_SAYS[found.verdict]}\n{numbers}; of other texts at most {false_alarms:g} are called marked"


def moderator(project: "Project") -> "Moderator":
    """What this project can judge of a text: rules, and the user's own toxicity classifier and word lists if there are any.

    Raises:
        UserError: the classifier or a list is damaged.
    """
    from gptwright.guard.moderation import Moderator

    return Moderator(_toxicity(project.state / "models" / "toxicity"), _words(project))


def _toxicity(folder: Path) -> "Score | None":
    if not (folder / "model.json").is_file():
        return None
    import pyarrow as pa

    from gptwright.corpus.quality import load

    model = load(folder)
    return lambda text: float(model.score(pa.array([text], pa.large_string()))[0])


def _words(project: "Project") -> "Score | None":
    places = tuple(str(project.root / place) for place in project.settings.corpus.quality.lists)
    if not places:
        return None
    import pyarrow as pa

    from gptwright.corpus.quality import flagged

    lists = flagged.load(places)
    return lambda text: float(lists.ratio(pa.array([text], pa.large_string()))[0])
