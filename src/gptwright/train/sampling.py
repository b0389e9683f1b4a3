"""Answers drawn from a model while it is trained, by the engine that serves it."""

from collections.abc import Sequence

from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train.grpo import Answer


class EngineSampler:
    """Draws with the inference engine over the working weights; a new engine each time, since it packs the weights it is given.

    Args:
        tokenizer: of the model.
        max_tokens: longest answer.
        temperature: of drawing.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, temperature: float) -> None:
        self.tokenizer, self.max_tokens, self.temperature = tokenizer, max_tokens, temperature

    def __call__(self, model: Transformer, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
        """See ``Sampler``."""
        configs = [
            GenerationConfig(max_tokens=self.max_tokens, temperature=self.temperature, seed=seed) for seed in seeds
        ]
        answers = []
        with Engine(model, self.tokenizer) as engine:
            requests = [engine.submit(prompt, config) for prompt, config in zip(prompts, configs, strict=True)]
            for request in requests:
                # Every piece stands for a token, the last one for the token that ended the answer.
                ids = [piece.token_id for piece in request if piece.token_id is not None]
                answers.append(Answer(ids, request.result().text))
        return answers
