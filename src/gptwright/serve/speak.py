"""From the steps of a running answer to what may be said: masked, divided into text and tool calls, counted. Knows no protocol."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from gptwright.guard.answers import AnswerFilter
from gptwright.serve.answer import Answer
from gptwright.serve.errors import ApiError
from gptwright.serve.flow import Step
from gptwright.serve.generate import Backend
from gptwright.serve.structure import AnswerReader, CallDelta


@dataclass(frozen=True)
class Part:
    """A piece of one choice.

    Attributes:
        index: which choice.
        text: what may be shown; maybe empty.
        calls: pieces of tool calls.
        tokens: steps whose log probabilities belong here.
        finish: how the choice ended, on its last piece: ``stop``, ``length`` or ``tool_calls``.
        hidden: log probabilities are kept back, for they would show personal data that was masked.
    """

    index: int
    text: str = ""
    calls: Sequence[CallDelta] = ()
    tokens: Sequence[Step] = ()
    finish: str | None = None
    hidden: bool = False


class _Choice:
    def __init__(self, speech: "Speech", index: int) -> None:
        self.index, self.speech = index, speech
        self.mask = speech.backend.guard.answer_filter()
        self.reader: AnswerReader = speech.answer.structure.reader()
        self.call_masks: dict[int, AnswerFilter] = {}  # arguments are an answer's words too
        self.tokens: list[Step] = []
        self.called = False
        self.done = False
        self.ids: list[int] = []

    def part(self, step: Step) -> Part:
        if self.speech.wants_tokens and step.logprob is not None and step.token_id is not None:
            self.tokens.append(step)
        if self.speech.stops and step.token_id is not None:
            self.ids.append(step.token_id)
        said, calls = self.reader.push(step.text, step.token_id)
        calls = self._mask_calls([*calls, *step.calls])  # a provider sends its calls apart from its text
        text = self.mask.push(said)
        self.called |= bool(calls)
        # With masking, tokens wait for the end: they would show what the text hides.
        tokens = [] if self.speech.backend.guard.masks_answers else self._drain()
        return Part(self.index, text, calls, tokens)

    def last(self, reason: str) -> Part:
        self.done = True
        said, rest = self.reader.finish()
        text = self.mask.push(said) + self.mask.finish()
        calls = self._mask_calls(rest)
        calls += [CallDelta(i, held) for i, mask in self.call_masks.items() if (held := mask.finish())]
        self.called |= bool(calls)
        masks = (self.mask, *self.call_masks.values())
        for kind, count in sum((Counter(mask.counts) for mask in masks), Counter[str]()).items():
            self.speech.backend.metrics.masked.labels(kind).inc(count)
        finish = "length" if reason in ("length", "deadline") else "tool_calls" if self.called else "stop"
        self.speech.answer.finished.append(finish)
        if finish == "stop":
            self.speech.stopped_by[self.index] = self._stop_text()
        hidden = any(mask.counts for mask in masks)
        return Part(self.index, text, calls, [] if hidden else self._drain(), finish, hidden)

    def _mask_calls(self, deltas: Sequence[CallDelta]) -> list[CallDelta]:
        if not self.speech.backend.guard.masks_answers:
            return list(deltas)
        found = []
        for delta in deltas:
            mask = self.call_masks.setdefault(delta.index, self.speech.backend.guard.answer_filter())
            shown = replace(delta, arguments=mask.push(delta.arguments))
            if shown.arguments or shown.id is not None:
                found.append(shown)
        return found

    def _stop_text(self) -> str | None:
        """The stop text that ended it; None: the model did. An engine does not say, but the last tokens do."""
        tokenizer = self.speech.answer.tokenizer
        if not self.speech.stops or tokenizer is None:
            return None
        text = tokenizer.decode(self.ids)
        found = [(at + len(stop), stop) for stop in self.speech.stops if (at := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _drain(self) -> list[Step]:
        taken, self.tokens = self.tokens, []
        return taken


@dataclass
class Speech:
    """What one answer says.

    Args:
        backend: what endpoints share.
        answer: the running answer.
        wants_tokens: whether log probabilities of tokens were asked for.
        stops: stop texts, if it matters which one ended an answer.
        stopped_by: of each choice that is over, the stop text that ended it.
    """

    backend: Backend
    answer: Answer
    wants_tokens: bool = False
    stops: tuple[str, ...] = ()
    stopped_by: dict[int, str | None] = field(default_factory=dict)
    complete: bool = False
    _closed: bool = False
    _choices: dict[int, _Choice] = field(default_factory=dict)

    async def parts(self) -> AsyncIterator[Part | None]:
        """Pieces as they come; None after a silence.

        Raises:
            ClientGoneError: nobody is left to answer.
            ApiError: the answer failed.
        """
        async for step in self.answer.flow.events():
            if step is None:
                yield None
                continue
            self._count(step)
            choice = self._choices.setdefault(step.index, _Choice(self, step.index))
            part = choice.part(step)
            if part.text or part.calls or part.tokens:
                yield part
            if step.finish_reason is not None:
                yield choice.last(step.finish_reason)
        # A provider may end without saying how.
        for index in range(self.answer.flow.choices):
            choice = self._choices.setdefault(index, _Choice(self, index))
            if not choice.done:
                yield choice.last("stop")
        self.complete = True

    def close(self) -> None:
        """The response is over: what still runs is cancelled, and what was used is written. A second time does nothing."""
        if not self._closed:
            self._closed = True
            self.answer.flow.close(self.complete)
            self.backend.count(self.answer)

    def _count(self, step: Step) -> None:
        answer = self.answer
        if step.token_id is not None:
            answer.completion_tokens += 1
        if step.model is not None:
            answer.model = f"{answer.model.partition(':')[0]}:{step.model}"
        answer.prompt_tokens = step.prompt_tokens or answer.prompt_tokens
        answer.completion_tokens = step.completion_tokens or answer.completion_tokens
        if step.finish_reason == "cancelled":
            raise ApiError(503, "The answer was cancelled: the server is stopping.", code="stopping")
        if self.backend.config.log_text:
            while len(answer.said) <= step.index:
                answer.said.append("")
            answer.said[step.index] += step.text
