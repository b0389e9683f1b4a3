"""A scaling law for held-out bits per byte: from parameters, tokens and how often the text is read, with an interval.

    bits per byte = E + A / N^alpha + B / D'^beta,   D' = U + U r (1 - exp(-(D / U - 1) / r)),   r = 15.4 (U / 20 N)^kappa, 15.4 at most

N are the parameters, D the tokens seen, U those that differ. Up to U every token counts whole; each further pass is worth less, and r is how
many passes it takes until they are worth 1/e. This is the data-constrained form of Muennighoff et al. (arXiv 2305.16264, equation 5), which
falls back to Chinchilla's (arXiv 2203.15556) where nothing is read twice. They measured r = 15.4 where U is about 20 N, and deal with models
that are larger for their text by a second term of the same shape in N. Ours always are: 0.3 to 10 tokens a parameter, and so small a text is
learnt by heart after two or three passes. One number for that, kappa, fits our runs, and the published r stands where they stood.

The law holds for the text and tokenizer of its runs; another text has another level. ``Correction`` moves it to a project's own runs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FILE = Path(__file__).with_name("law.json")
_RUNS = Path(__file__).with_name("runs.json")
_PASSES, _FED = 15.4, 20.0  # r, and the tokens a parameter at which it was measured (arXiv 2305.16264)
# Where a run says nothing, the published values do: (mean, standard deviation) of the logarithms. alpha and beta from arXiv 2203.15556, table
# A3 (0.34 and 0.28), loose; kappa is ours and looser still; E, A and B are of our own text and free.
_PRIOR = {"alpha": (math.log(0.34), 0.5), "beta": (math.log(0.28), 0.5), "kappa": (math.log(0.6), 1.0)}
_NOISE = 0.01  # of a run's bits per byte, between seeds and where the law bends: weighs runs against priors
_HUBER = 2.0  # residuals beyond so many of the noise count by their size, not its square
_STARTS = ((0.3, 0.3), (0.3, 0.5), (0.5, 0.3), (0.5, 0.5), (0.2, 0.2))
_STEPS = 400
_SCALE = 1e6  # N and D are counted in millions, so that all parameters have about one size
# Student's t for 90 % two-sided, by degrees of freedom.
_T90 = {1: 6.31, 2: 2.92, 3: 2.35, 4: 2.13, 5: 2.02, 6: 1.94, 8: 1.86, 10: 1.81, 15: 1.75, 20: 1.72, 30: 1.70}


@dataclass(frozen=True)
class Run:
    """What a finished run tells the law.

    Args:
        params: all of them; a tied head counts once.
        tokens: seen.
        unique: of them that differ.
        bits_per_byte: held out.
    """

    params: float
    tokens: float
    unique: float
    bits_per_byte: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Run":
        """From a row of runs.json."""
        return cls(float(row["params"]), float(row["tokens"]), float(row["unique_tokens"]), float(row["bits_per_byte"]))


@dataclass(frozen=True)
class Law:
    """Constants of the law, and how well it fits.

    Args:
        e: bits per byte that no size and no text removes.
        a: with ``alpha``, what the size costs; N in millions.
        alpha: see the module.
        b: with ``beta``, what the text costs; D' in millions.
        beta: see the module.
        kappa: see the module.
        spread: of a run around the law, left out of the fit, as a share of its bits per byte.
        other_text: the same between texts: of a project of which nothing is known yet.
        n: runs that it was fitted on.
        smallest: of their parameters and tokens.
        largest: of their parameters and tokens.
        corpus: of what text.
        fitted: on which day.
    """

    e: float
    a: float
    alpha: float
    b: float
    beta: float
    kappa: float
    spread: float
    other_text: float
    n: int
    smallest: tuple[float, float]
    largest: tuple[float, float]
    corpus: str
    fitted: str

    def __call__(self, params: float, tokens: float, unique: float) -> float:
        """Bits per byte."""
        worth = effective_tokens(tokens, unique, passes_worth(params, unique, self.kappa))
        return self.e + self.a * math.pow(params / _SCALE, -self.alpha) + self.b * math.pow(worth / _SCALE, -self.beta)

    def beyond(self, params: float, tokens: float) -> float:
        """How far a run lies outside the fitted ones: the larger of the factors in parameters and tokens, 1 inside."""
        factors = [1.0]
        for value, low, high in zip((params, tokens), self.smallest, self.largest, strict=True):
            factors += [low / value, value / high]
        return max(factors)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Law":
        """Back from JSON."""
        return cls(**{**value, "smallest": tuple(value["smallest"]), "largest": tuple(value["largest"])})

    @classmethod
    def load(cls, path: Path = _FILE) -> "Law":
        """The law that comes with the package."""
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Forecast:
    """Expected bits per byte and where nine of ten such runs end.

    Args:
        value: expected.
        low: of the interval.
        high: of the interval.
        basis: of what it is known, for a person.
        beyond: 1 where runs of this size were made; else by which factor it is extrapolated.
    """

    value: float
    low: float
    high: float
    basis: str
    beyond: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Correction:
    """What a project's own finished runs say about the law's forecasts of them: one factor, and how sure it is.

    Args:
        factor: by which the project's bits per byte differ.
        spread: of its runs around that, as a share.
        n: runs.
    """

    factor: float = 1.0
    spread: float = 0.0
    n: int = 0


def correct(law: Law, ratios: Sequence[float]) -> Correction:
    """Learn a project's level from the ratios fact / forecast of its runs.

    The median of the logarithms, drawn towards 1 as if one more run had ended exactly as forecast, with the weight that a new text's spread
    against the law's gives it: one run moves the level nearly all the way, and one run that went astray among several does not.
    """
    if not ratios:
        return Correction(1.0, law.other_text, 0)
    logs = np.log(np.asarray(ratios, dtype=float))
    n = len(logs)
    weight = n / (n + (law.spread / law.other_text) ** 2)
    middle = float(np.median(logs))
    # The law's own spread, or the runs' where it is larger; the level itself is known to a root of their number.
    own = max(law.spread, float(1.4826 * np.median(np.abs(logs - middle))) if n > 2 else 0.0)
    return Correction(math.exp(weight * middle), own * math.sqrt(1 + 1 / n), n)


def forecast(law: Law, params: float, tokens: float, unique: float, own: Correction | None = None) -> Forecast:
    """Bits per byte of a run that is planned.

    Args:
        law: fitted.
        params: of the model.
        tokens: that it will see.
        unique: of the text.
        own: from the project's runs; None: there are none.
    """
    own = own or correct(law, ())
    value = own.factor * law(params, tokens, unique)
    beyond = law.beyond(params, tokens)
    # An assumption, since nothing was run there: each doubling beyond the fitted sizes adds as much spread again as the law has inside.
    spread = math.hypot(own.spread, law.spread * math.log2(beyond))
    wide = _t90(law.n - 6 if own.n == 0 else law.n - 6 + own.n) * spread
    basis = f"a law fitted on {law.n} runs on {law.corpus}"
    if own.n:
        basis += f", moved to {own.n} run{'s' if own.n > 1 else ''} of this project"
    return Forecast(value, value * math.exp(-wide), value * math.exp(wide), basis, beyond)


def passes_worth(params: float, unique: float, kappa: float) -> float:
    """Passes over a text until a further one is worth 1/e of new text: r of the module."""
    return _PASSES * math.pow(min(1.0, unique / (_FED * params)), kappa)


def effective_tokens(tokens: float, unique: float, r: float) -> float:
    """Tokens of new text that the tokens seen are worth."""
    if unique <= 0 or tokens <= unique:
        return tokens
    return unique * (1 + r * -math.expm1(-(tokens / unique - 1) / r))


def fit(
    runs: Sequence[Run], *, corpus: str = "", day: str = "", other_text: float = 0.15, leave_one_out: bool = True
) -> Law:
    """Fit the constants: least squares of logarithms with Huber's loss, priors where the runs say nothing, several starts.

    Args:
        runs: at least seven, of one text.
        corpus: of what text, for a person.
        day: of the fit.
        other_text: spread between texts; see ``Law``.
        leave_one_out: also measure the spread: each run is forecast by a law fitted on the others.

    Raises:
        ValueError: too few runs, or one that is no run.
    """
    if len(runs) < 7:
        raise ValueError(f"{len(runs)} runs; six constants need at least seven")
    if not all(v > 0 and math.isfinite(v) for run in runs for v in asdict(run).values()):
        raise ValueError("a run has a number that is not above zero")
    constants = _solve(runs)
    law = Law(
        **constants,
        spread=0.0,
        other_text=other_text,
        n=len(runs),
        smallest=(min(run.params for run in runs), min(run.tokens for run in runs)),
        largest=(max(run.params for run in runs), max(run.tokens for run in runs)),
        corpus=corpus,
        fitted=day,
    )
    errors = residuals(law, runs)
    if leave_one_out:
        errors = []
        for i, run in enumerate(runs):
            others: dict[str, Any] = {**_solve([*runs[:i], *runs[i + 1 :]], constants)}
            without = replace(law, **others)
            errors += residuals(without, [run])
    return replace(law, spread=float(np.sqrt(np.mean(np.square(errors)))))


def residuals(law: Law, runs: Sequence[Run]) -> list[float]:
    """log(fact / forecast) of runs."""
    return [math.log(run.bits_per_byte / law(run.params, run.tokens, run.unique)) for run in runs]


def load_runs(path: Path = _RUNS) -> list[dict[str, Any]]:
    """Measured runs that come with the package; benchmarks/scaling_runs.py makes them."""
    loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _solve(runs: Sequence[Run], near: Mapping[str, float] | None = None) -> dict[str, float]:
    """The constants of least cost over several starts, or from one that is near."""
    columns = torch.tensor([[r.params, r.tokens, r.unique, r.bits_per_byte] for r in runs], dtype=torch.float64).T
    best, cost = None, math.inf
    if near is not None:
        starts = [[math.log(near[name]) for name in ("e", "a", "alpha", "b", "beta", "kappa")]]
    else:
        low = math.log(float(columns[3].min()) / 2)
        starts = [[low, low, math.log(x), low, math.log(y), _PRIOR["kappa"][0]] for x, y in _STARTS]
    for start in starts:
        theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([theta], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

        def closure(theta: Tensor = theta, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = _cost(theta, columns)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        reached = float(_cost(theta.detach(), columns))
        if reached < cost:
            best, cost = theta.detach(), reached
    assert best is not None, "no start led anywhere"
    return dict(zip(("e", "a", "alpha", "b", "beta", "kappa"), best.exp().tolist(), strict=True))


def _cost(theta: Tensor, columns: Tensor) -> Tensor:
    params, tokens, unique, bits = columns
    e, a, alpha, b, beta, kappa = theta.exp()
    r = _PASSES * (unique / (_FED * params)).clamp(max=1.0) ** kappa
    passes = (tokens / unique - 1).clamp(min=0)
    worth = torch.minimum(tokens, unique) + unique * r * -torch.expm1(-passes / r)
    value = e + a * (params / _SCALE) ** -alpha + b * (worth / _SCALE) ** -beta
    off = (bits.log() - value.log()) / _NOISE
    size = off.abs()
    data = torch.where(size <= _HUBER, 0.5 * off**2, _HUBER * (size - 0.5 * _HUBER)).sum()
    prior = sum(
        0.5 * ((theta[place] - mean) / deviation) ** 2
        for place, (mean, deviation) in zip((2, 4, 5), _PRIOR.values(), strict=True)
    )
    return data + prior


def _t90(freedom: int) -> float:
    known = [t for degrees, t in _T90.items() if degrees <= max(1, freedom)]
    return known[-1]
