"""The guard: what a person sends is checked and cleaned, what is kept is masked, what the model answers is masked.

It sees text only, never weights; it raises errors that name the field, and never logs what it saw.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from gptwright.core.errors import UserError
from gptwright.corpus.privacy import mask_pii
from gptwright.guard.answers import AnswerFilter
from gptwright.guard.config import GuardConfig
from gptwright.guard.invisible import strip_invisible
from gptwright.guard.markers import neutralise

Message = dict[str, str]


class GuardError(UserError):
    """A prompt that the guard does not let through.

    Args:
        what: the fault.
        param: the request field it was found at, such as ``messages[3].content``.
        code: a short machine-readable name.
        fix: what to do now.
    """

    def __init__(self, what: str, *, param: str, code: str, fix: str | None = None) -> None:
        super().__init__(what, where=param, fix=fix)
        self.param, self.code = param, code


class Guard:
    """Checks and cleans text on its way in and out of a model.

    Args:
        config: the ``[guard]`` section.
    """

    def __init__(self, config: GuardConfig | None = None) -> None:
        self.config = config or GuardConfig()

    def check_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[Message]:
        """Check limits and clean a conversation before the model sees it.

        Args:
            messages: ``role`` and ``content``, oldest first.

        Returns:
            The same conversation without hidden characters and forged markers.

        Raises:
            GuardError: too many messages, or too long.
        """
        limit = self.config.max_messages
        if len(messages) > limit:
            raise GuardError(
                f"{len(messages)} messages, at most {limit} are allowed",
                param="messages",
                code="too_many_messages",
                fix="Leave out the oldest ones, or raise [guard] max_messages",
            )
        total = sum(len(message["content"]) for message in messages)
        if total > self.config.max_total_chars:
            raise GuardError(
                f"{total} characters in all, at most {self.config.max_total_chars} are allowed",
                param="messages",
                code="conversation_too_long",
                fix="Leave out the oldest messages, or raise [guard] max_total_chars",
            )
        return [
            {**message, "content": self.check_text(message["content"], param=f"messages[{index}].content")}
            for index, message in enumerate(messages)
        ]

    def check_text(self, text: str, *, param: str) -> str:
        """Check the length of one text and clean it.

        Args:
            text: what a person sent.
            param: the request field it came in, for the error.

        Raises:
            GuardError: it is too long.
        """
        limit = self.config.max_message_chars
        if len(text) > limit:
            raise GuardError(
                f"{len(text)} characters, at most {limit} are allowed",
                param=param,
                code="message_too_long",
                fix="Shorten it, or raise [guard] max_message_chars",
            )
        if not self.config.enabled:
            return text
        if self.config.strip_invisible:
            text = strip_invisible(text)  # first: a hidden character must not shield a marker
        return neutralise(text) if self.config.neutralise_markers else text

    def for_keeping(self, messages: Sequence[Mapping[str, str]]) -> list[Message]:
        """The conversation as it may be stored or logged: personal data replaced by typed placeholders."""
        return [{**message, "content": self.text_for_keeping(message["content"])} for message in messages]

    def text_for_keeping(self, text: str) -> str:
        """One text as it may be stored or logged."""
        return mask_pii(text)[0] if self.config.enabled and self.config.mask_prompts else text

    def answer_filter(self) -> AnswerFilter:
        """A filter for one streamed answer: push pieces of text in, get text out that is safe to send."""
        return AnswerFilter(mask=self.masks_answers)

    def mask_answer(self, text: str) -> tuple[str, Counter[str]]:
        """Mask a whole answer.

        Returns:
            The text, and how many of each kind were masked.
        """
        if not self.masks_answers:
            return text, Counter()
        masked, counts = mask_pii(text)
        return masked, Counter(counts)

    @property
    def masks_answers(self) -> bool:
        """Whether answers are masked at all."""
        return self.config.enabled and self.config.mask_answers
