"""What a text holds that one may not want, judged by what this project truly has: rules, and a classifier and word lists of the user's own.

No hosted classifier's categories are imitated. Violence, hate, sexual content and the like are not judged here: they are reported as not found
because OpenAI's shape wants the keys, and the answer lists what was really looked at.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gptwright.corpus.privacy import find_all
from gptwright.guard.invisible import strip_invisible
from gptwright.guard.markers import has_marker

PERSONAL, MARKERS, HIDDEN = "personal-data", "forged-markers", "hidden-characters"
TOXICITY, WORDS = "toxicity", "flagged-words"

Score = Callable[[str], float]


@dataclass(frozen=True)
class Judgement:
    """What one text showed.

    Args:
        scores: of each category that was judged: 1 or 0 for rules, a probability or share for the user's own.
        flagged: categories that were found.
        kinds: personal data by kind, such as EMAIL.
    """

    scores: dict[str, float]
    flagged: frozenset[str]
    kinds: dict[str, int]


class Moderator:
    """Judges texts.

    Args:
        toxicity: probability that a text is toxic, by a classifier that the user trained (``data label --task toxicity``); None: not judged.
        words: share of a text's words that the user's lists name; None: not judged.
        toxic_from: the probability from which a text counts as toxic.
    """

    def __init__(self, toxicity: Score | None = None, words: Score | None = None, toxic_from: float = 0.5) -> None:
        self._toxicity, self._words, self._toxic_from = toxicity, words, toxic_from

    @property
    def categories(self) -> tuple[str, ...]:
        """What is judged."""
        own = ((TOXICITY, self._toxicity), (WORDS, self._words))
        return (PERSONAL, MARKERS, HIDDEN, *(name for name, score in own if score is not None))

    def judge(self, text: str) -> Judgement:
        """Judge a text as it was sent."""
        visible = strip_invisible(text)  # a hidden character must not shield the rest
        kinds = dict(Counter(span.kind for span in find_all(visible)))
        found = {PERSONAL: bool(kinds), MARKERS: has_marker(visible), HIDDEN: visible != text}
        scores = {name: float(there) for name, there in found.items()}
        if self._toxicity is not None:
            scores[TOXICITY] = self._toxicity(visible)
            found[TOXICITY] = scores[TOXICITY] >= self._toxic_from
        if self._words is not None:
            scores[WORDS] = self._words(visible)
            found[WORDS] = scores[WORDS] > 0
        return Judgement(scores, frozenset(name for name, there in found.items() if there), kinds)
