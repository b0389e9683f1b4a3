"""The planner's choices in one table: what is neither measured on the machine nor asked of the user."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """Every number of the planner that is a choice and no measurement of the machine. Dated 2026-11-24."""

    # Tokens for each parameter (embedding counted once). Measured here: in five minutes, 2.2M parameters on 10M tokens end lower
    # than 4M on 6.4M and 6.9M on 3.7M (docs/log.md). Chinchilla (arXiv 2203.15556) has 20 at 1e11 tokens and more; between the
    # two a power of the tokens, which is an assumption.
    tokens_per_param: float = 4.0
    ratio_tokens: float = 1e7
    ratio_exponent: float = 0.175
    most_tokens_per_param: float = 20.0
    least_tokens_per_param: float = 0.5  # below, a plan for a given shape is warned about
    # Passes over the text. arXiv 2305.16264: up to 4 cost next to nothing, the gain then fades; small projects have no more text.
    max_epochs: float = 8.0
    worth_passes: float = 2.3  # in units of the law's r: a further pass is then worth a tenth of new text
    hopeless_epochs: float = (
        100.0  # the time would allow this many passes: an open model, fine-tuned, is the better use of it
    )
    tokens_reference: float = (
        1e9  # where the search for a batch, which the trainer's dial gives for so many tokens, begins
    )
    too_few_steps: int = 100
    reserve: float = 0.03  # share of the time for checkpoints and the log, as the trainer keeps it
    evals: int = 10  # held-out measurements of a run, and how long each is: about 32 KB of text
    heldout_tokens: float = 10_000.0
    setup_s: float = 5.0  # of a run: products measured, the first steps, the last checkpoint
    setup_cpu_s: float = (
        2.5  # fitted on the last three runs of the law, which were made on a less busy machine than the others
    )
    busy: float = 1.5  # a slowdown that is told
    # Python, torch, the corpus's libraries and their workspaces: the peak of a run in a project less the parts that are counted. 550 to 611 MB
    # in eleven runs of the law's, on two threads; with the trainer alone in the process, without a project around it, 340.
    runtime_bytes: int = 589_000_000
    # Of it, what such a process holds before the run begins: 523 MB, and 584 MB after a probe. What a process holds beyond that is from
    # stages that ran before in it (a run from the corpus on: 918 MB), and no part of the run.
    begin_bytes: int = 550_000_000
    memory_share: float = 0.8  # of the free memory may be used
    checkpoints: int = 3
    # Bytes of text a token by vocabulary: measured on held-out English chit-chat with our own tokenizer; other text may have less.
    # Replaced by the tokenizer's own figure as soon as there is one.
    bytes_per_token: tuple[tuple[int, float], ...] = (
        (1024, 2.87),
        (2048, 3.38),
        (4096, 3.77),
        (8192, 4.03),
        (16384, 4.19),
    )
    # Largest vocabulary by bytes of text, and the largest part of a model that its table may be: ours, to be tuned.
    embedding_share: float = 0.6
    vocab: tuple[tuple[float, int], ...] = ((1e6, 1024), (3e6, 2048), (30e6, 4096), (1e9, 8192), (math.inf, 32768))
    # Graphics cards. A product reaches gpu_share of the peak in a very wide model and less in a narrow one, gpu_share * d / (d +
    # gpu_half_width): 30 % at 768 wide (nanoGPT's GPT-2 on 8 A100: 300e9 tokens in 4 days), 39 % at 4,096 (torchtitan, Llama 3.1 8B on H100,
    # December 2024), 46 % at 1,152 with every trick (nanochat, February 2026): hence the interval.
    gpu_share: float = 0.42
    gpu_half_width: float = 300.0
    gpu_low: float = 0.7
    gpu_high: float = 1.4
    gpu_launch_s: float = 150e-6  # a block's kernels one after the other, forward; an assumption: without graphs about 15 of 10 microseconds
    # Of the time that cards talk: what the network reaches of its promise, what of the products hides it, what never hides. From 8 to 128
    # cards torchtitan's 8B lost 3 %, which is 6 % of the talk.
    gpu_link_share: float = 0.7
    gpu_hides: float = 0.7
    gpu_never_hides: float = 0.06
    gpu_runtime_bytes: float = 1.5e9  # context, libraries, and gaps in the allocator; an assumption
    gpu_memory_share: float = 0.9
    # Serving. A decode step reaches this share of the memory's bandwidth: SmolLM2-135M in bf16 decodes 71 tokens/s here (docs/performance.md),
    # and llama.cpp and vLLM reach 60 to 80 % where it was measured. A prompt reaches serve_flops_share of the peak of products.
    serve_bandwidth_share: float = 0.6
    serve_flops_share: float = 0.4
    serve_batch: int = 64  # answers at once, more than which an engine seldom runs
    serve_step_s: float = 2e-3  # launches and sampling of a token on a card; an assumption
    serve_step_s_cpu: float = 2e-4
    adapt_s: float = 900.0  # what the template adapt takes for fine-tuning at most
    lora_share: float = (
        0.7  # of full training's time, for adapters on frozen matrices; two of three products, and what lies between
    )
    # The dial of sizes: notches of a quarter, from one block up to some hundred times 10^9 parameters.
    size_step: float = 1.25
    sizes: int = 52

    def wanted_ratio(self, tokens: float) -> float:
        """Tokens for each parameter that a model trained on so many tokens should have."""
        grown: float = self.tokens_per_param * (max(tokens, 1.0) / self.ratio_tokens) ** self.ratio_exponent
        return min(self.most_tokens_per_param, grown)


CONSTANTS = Constants()
