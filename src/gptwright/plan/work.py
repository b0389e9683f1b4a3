"""Work of the optimizer, counted."""

from gptwright.model.config import ModelConfig
from gptwright.train.machine import matrices


def update_work(config: ModelConfig) -> float:
    """Work of one optimizer step in multiply-adds of Muon's orthogonalisation: per matrix, its short side squared times its long side."""
    return config.n_layers * sum(float(min(shape)) ** 2 * max(shape) for shape in matrices(config))
