"""Which hardware serves which load: memory of weights and of keys and values, and a decode speed bound by the memory's bandwidth.

A generated token reads every weight once for all answers of a batch, and each answer's own keys and values. Nothing here was measured on
these machines, except this one's bandwidth when a probe of it is given: forecasts for choosing, not promises.
Source: the arithmetic of Pope et al. 2022 (arXiv 2211.05102), section 2.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gptwright.core.progress import short
from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.model.presets import named
from gptwright.plan.constants import CONSTANTS, Constants
from gptwright.plan.devices import devices, rented
from gptwright.plan.probe import Machine

# Bytes of a weight. llama.cpp's blocks of 32 weights carry a scale of two bytes: Q8_0 34 bytes, Q4_0 18.
DTYPES = {"float32": 4.0, "bfloat16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_DEFAULT_DEVICES = ("rtx4090", "l4", "l40s", "a100", "h100")


@dataclass(frozen=True)
class Load:
    """What is to be served.

    Args:
        requests_per_day: spread over the day as below.
        prompt_tokens: of a request.
        answer_tokens: of an answer.
        peak_factor: requests in the busiest minutes over the day's mean.
    """

    requests_per_day: float = 1000.0
    prompt_tokens: int = 500
    answer_tokens: int = 200
    peak_factor: float = 5.0

    @property
    def peak_per_s(self) -> float:
        """Requests a second when it is busy."""
        return self.requests_per_day * self.peak_factor / 86400


@dataclass(frozen=True)
class ServingRow:
    """A model on a machine.

    Args:
        device: name, or "this machine".
        weights: bytes.
        kv_per_token: bytes of keys and values a token.
        most_answers: that the memory holds at once, at the given length.
        decode_one: tokens a second of a single answer.
        decode_all: of all answers of a full batch together.
        prefill: prompt tokens a second.
        first_token_s: seconds of an unloaded machine to the first token.
        requests_per_day: that it carries, with the load's peaks.
        answers_load: whether that is enough.
        usd_per_month: of 730 hours; None without a price.
        usd_per_million: a million answered tokens when fully used; None without a price.
    """

    model: str
    device: str
    dtype: str
    weights: int
    kv_per_token: int
    fits: bool
    most_answers: int
    decode_one: float
    decode_all: float
    prefill: float
    first_token_s: float
    requests_per_day: float
    answers_load: bool
    usd_per_month: float | None
    usd_per_million: float | None
    measured: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class _Host:
    name: str
    memory: float
    flops: float
    bandwidth: float
    usd_per_hour: float | None
    step_s: float  # of a token, whatever the model: launches, sampling, Python
    measured: bool


def sizing(
    model: str | ModelConfig,
    hardware: Iterable[str | Machine] = _DEFAULT_DEVICES,
    load: Load | None = None,
    *,
    dtype: str = "bfloat16",
    kv_bytes: int = 2,
    usd_per_hour: float | None = None,
    constants: Constants = CONSTANTS,
) -> list[ServingRow]:
    """What each machine can carry of a model.

    Args:
        model: name of a preset, or a shape.
        hardware: names in the table of devices (``2xh100`` divides the model over both), or probes of this machine.
        load: what is to be served; None: the defaults of ``Load``.
        dtype: of the weights: float32, bfloat16, q8_0 or q4_0.
        kv_bytes: of a key's or value's number.
        usd_per_hour: price of this machine, where a probe is given.
        constants: the planner's choices.

    Raises:
        UserError: no such model or device.
    """
    shape = named(model) if isinstance(model, str) else model
    name = model if isinstance(model, str) else f"{short(cost.params(shape))} {shape.family}"
    load = load or Load()
    return [
        _row(name, shape, _host(one, usd_per_hour, constants), load, dtype, kv_bytes, constants) for one in hardware
    ]


def _row(
    name: str, config: ModelConfig, host: _Host, load: Load, dtype: str, kv_bytes: int, c: Constants
) -> ServingRow:
    weights = int(cost.params(config) * DTYPES[dtype])
    per_token = cost.kv_cache_bytes(config, 1, kv_bytes)
    length = min(load.prompt_tokens + load.answer_tokens, config.seq_len)
    room = c.gpu_memory_share * host.memory - weights
    batch = int(min(c.serve_batch, max(0.0, room // (per_token * length))))
    bandwidth, flops = c.serve_bandwidth_share * host.bandwidth, c.serve_flops_share * host.flops
    middle = load.prompt_tokens + load.answer_tokens // 2  # an answer's length so far, on average

    def step(answers: int) -> float:
        """Seconds of one token for each of so many answers."""
        read = (weights + answers * per_token * middle) / bandwidth
        return host.step_s + max(read, answers * cost.decode_flops_per_token(config, middle) / flops)

    prompt = load.prompt_tokens * cost.forward_flops_per_token(config, load.prompt_tokens) / flops
    prompt = max(prompt, weights / bandwidth)  # the first token of an answer
    fits = batch >= 1
    decode_all = batch / step(batch) if fits else 0.0
    # A request takes its prompt alone and its share of a full batch's steps.
    request_s = prompt + load.answer_tokens / decode_all if fits else float("inf")
    a_day = 86400 / request_s / load.peak_factor
    month = None if host.usd_per_hour is None else 730 * host.usd_per_hour
    return ServingRow(
        model=name,
        device=host.name,
        dtype=dtype,
        weights=weights,
        kv_per_token=per_token,
        fits=fits,
        most_answers=batch,
        decode_one=1 / step(1) if fits else 0.0,
        decode_all=decode_all,
        prefill=load.prompt_tokens / prompt if fits else 0.0,
        first_token_s=prompt + step(1),
        requests_per_day=a_day,
        answers_load=a_day >= load.requests_per_day,
        usd_per_month=month,
        usd_per_million=(
            None
            if host.usd_per_hour is None or not fits
            else host.usd_per_hour / 3600 / load.answer_tokens * request_s * 1e6
        ),
        measured=host.measured,
    )


def sizing_table(rows: Sequence[ServingRow]) -> str:
    """The rows as a Markdown table."""
    head = "| model | on | weights | answers at once | tokens/s: one answer, all | first token | requests a day | USD a month |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        money = "-" if row.usd_per_month is None else f"{row.usd_per_month:,.0f}"
        where = row.device + ("" if row.measured else " (forecast)")
        start = f"| {row.model}, {row.dtype} | {where} | {row.weights / 1e9:.2f} GB |"
        if not row.fits:
            lines.append(f"{start} **does not fit** | - | - | - | {money} |")
            continue
        lines.append(
            f"{start} {row.most_answers} | {short(row.decode_one)}, {short(row.decode_all)} | {row.first_token_s * 1000:,.0f} ms |"
            f" {short(row.requests_per_day)} | {money} |"
        )
    return "\n".join(lines)


def _host(one: str | Machine, usd_per_hour: float | None, c: Constants) -> _Host:
    if isinstance(one, Machine):
        flops = max(one.matmul_fp32, one.matmul_bf16)
        step_s = c.serve_step_s_cpu
        if one.decode is not None:  # measured: what a token took beyond reading the weights
            read = 2 * one.decode.params / (c.serve_bandwidth_share * one.bandwidth)
            step_s = max(step_s, 1 / one.decode.one - read)
        return _Host("this machine", float(one.memory_free_bytes), flops, one.bandwidth, usd_per_hour, step_s, True)
    hire = rented(one) if one not in devices() else rented(f"1x{one}")
    card = hire.device
    return _Host(
        one,
        card.memory * hire.gpus,
        card.flops * hire.gpus,
        card.bandwidth * hire.gpus,
        hire.usd_per_hour,
        c.serve_step_s * (1 if hire.gpus == 1 else 2),
        False,
    )
