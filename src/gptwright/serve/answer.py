"""An answer while it is made: its prompts, its choices, what was used."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gptwright.infer.scoring import TokenScore
from gptwright.serve.caller import Caller
from gptwright.serve.flow import Flow
from gptwright.serve.limits import Reservation
from gptwright.serve.protocols import Running, TokenizerLike
from gptwright.serve.structure import FREE, Structure


@dataclass
class PromptText:
    """A prompt.

    Attributes:
        ids: what the model reads.
        text: as it was sent; of token ids their text.
        lead: ids at the front that the text does not have (what begins a document).
        scores: log-probabilities of ``ids``, if asked for.
    """

    ids: list[int]
    text: str = ""
    lead: int = 0
    scores: Sequence[TokenScore] = ()


@dataclass
class Answer:
    """An answer that is being generated, of one choice or several.

    Attributes:
        model: the full id, never only an alias.
        flow: its steps.
        caller: who asked.
        tokenizer: of the model; None when it is a provider's.
        prompts: what is answered; choice i belongs to prompt i // (choices / prompts).
        prompt_tokens: tokens of the prompts.
        completion_tokens: tokens generated so far, of all choices.
        dropped: old messages that did not fit the context and were left out, on request.
        end_user: for whom the caller asks.
        structure: the form that the answer must have.
        finished: how its choices ended.
        said: text generated so far; only kept if it is to be logged.
    """

    model: str
    flow: Flow
    caller: Caller
    tokenizer: TokenizerLike | None = None
    prompts: list[PromptText] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped: int = 0
    end_user: str | None = None
    structure: Structure = FREE
    reservation: Reservation | None = None
    finished: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    works: Sequence[Running] = ()

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that the engine had read before; of several answers to one prompt the first one's count."""
        each = max(1, len(self.works) // max(1, len(self.prompts)))
        return sum(int(getattr(work, "reused_tokens", 0)) for work in self.works[::each])
