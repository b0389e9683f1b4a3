"""Who looks on while a project trains: the sinks of ``[tracking]``, and samples of what the model writes."""

from typing import TYPE_CHECKING

from gptwright.core.progress import say
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train.callbacks import Callback, Samples
from gptwright.train.sinks import sinks

if TYPE_CHECKING:
    from gptwright.project.project import Project


def onlookers(project: "Project", tokenizer: Tokenizer) -> list[Callback]:
    """The callbacks that a run of this project is given.

    Args:
        project: its settings say which.
        tokenizer: of the model that is trained.

    Raises:
        UserError: a sink's package is not installed.
    """
    wanted, settings = project.settings.tracking, project.settings
    found: list[Callback] = []
    if wanted.sinks:
        found += sinks(
            wanted.sinks,
            project.work / "tracking",
            settings.project.name,
            mlflow_uri=wanted.mlflow_uri,
            wandb_online=wanted.wandb_online,
        )
    if wanted.samples_every is not None and settings.evaluate.samples:
        from gptwright.infer.config import GenerationConfig
        from gptwright.infer.engine import Engine

        tokens = wanted.samples_tokens

        def sample(model: Transformer, prompt: str) -> str:
            with Engine(model, tokenizer) as engine:
                request = engine.submit(
                    tokenizer.encode(prompt), GenerationConfig(max_tokens=tokens, temperature=0.8, seed=0)
                )
                return request.result().text

        found.append(Samples(sample, settings.evaluate.samples, wanted.samples_every, say))
    return found
