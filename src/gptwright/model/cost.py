"""What a shape costs: parameters, FLOPs a token, bytes of training and of the KV cache. Arithmetic only; nothing is allocated."""

from gptwright.model.config import ModelConfig

QUERY_ROWS = 256  # of a block in kernels.py's attention, which imports it from here


def params(config: ModelConfig) -> int:
    """Exact number of parameters; a tied head counts once."""
    return matrix_params(config) + _vector_params(config) + embedding_params(config)


def embedding_params(config: ModelConfig) -> int:
    """Parameters of the token embedding, an untied head, and learned positions."""
    tables = config.vocab_size * (1 if config.tie_embeddings else 2)
    return (tables + (config.seq_len if config.family == "gpt2" else 0)) * config.d_model


def matrix_params(config: ModelConfig) -> int:
    """Parameters of the blocks' matrices: what every token is multiplied with, the head aside."""
    c = config
    attention = c.d_model * c.d_head * (2 * c.n_heads + 2 * c.n_kv_heads)
    feed_forward = c.d_model * c.d_ff * (2 if c.family == "gpt2" else 3)
    return c.n_layers * (attention + feed_forward)


def _vector_params(config: ModelConfig) -> int:
    c = config
    if c.family == "gpt2":
        norms, biases = 4 * c.d_model, 3 * c.d_model + c.d_model + c.d_ff + c.d_model
        return c.n_layers * (norms + biases) + 2 * c.d_model
    qk_norms = 2 * c.d_head if c.qk_norm else 0
    biases = c.d_head * (c.n_heads + 2 * c.n_kv_heads) if c.qkv_bias else 0
    return c.n_layers * (2 * c.d_model + qk_norms + biases) + c.d_model


def forward_flops_per_token(config: ModelConfig, seq_len: int, head: bool = True) -> int:
    """Floating-point operations of the forward pass for one token, averaged over a causal sequence.

    Multiplications and additions of matrix products count as two; norms, softmax and activations are left out (under 2 %).

    Args:
        config: the shape.
        seq_len: tokens in the sequence; position t attends to t + 1 positions, (seq_len + 1) / 2 on average.
        head: include the output matrix.
    """
    c = config
    matmul = 2 * (matrix_params(c) + (c.vocab_size * c.d_model if head else 0))
    attention = c.n_layers * 4 * c.n_heads * c.d_head * (seq_len + 1) // 2
    return matmul + attention


def flops_per_token(config: ModelConfig, seq_len: int, *, frozen: bool = False) -> int:
    """FLOPs of training for one token: forward, and a backward of twice that (gradients of inputs and of weights).

    Args:
        frozen: the weights are not trained, adapters beside them are: no gradients of weights.
    """
    return (2 if frozen else 3) * forward_flops_per_token(config, seq_len)


def decode_flops_per_token(config: ModelConfig, context: int) -> int:
    """FLOPs of generating one token after ``context`` tokens in the cache."""
    c = config
    return 2 * (matrix_params(c) + c.vocab_size * c.d_model) + c.n_layers * 4 * c.n_heads * c.d_head * (context + 1)


def kv_cache_bytes(config: ModelConfig, tokens: int, bytes_per_value: int = 2) -> int:
    """Bytes of keys and values for this many tokens in the cache (all sequences together)."""
    return 2 * config.n_layers * config.n_kv_heads * config.d_head * tokens * bytes_per_value


def weight_bytes(config: ModelConfig, bytes_per_value: int = 4) -> int:
    """Bytes of the weights."""
    return params(config) * bytes_per_value


def activation_bytes(config: ModelConfig, tokens: int, bytes_per_value: int = 2) -> int:
    """Bytes kept for the backward pass by one micro-batch of ``tokens`` tokens, in whole sequences: the inputs of each matrix product and
    norm, and of attention the fused projection, queries, keys, values, output, and the probabilities, a block of queries over the keys
    that it sees. Logits are not kept (chunked loss). Without training's kernels, PyTorch's attention keeps no probabilities: less."""
    c = config
    t = min(c.seq_len, tokens)
    blocks = range(0, t, QUERY_ROWS)
    scores = sum((min(t, start + QUERY_ROWS) - start) * min(t, start + QUERY_ROWS) for start in blocks) / max(t, 1)
    attention = 2 * c.d_model + c.d_head * (5 * c.n_heads + 2 * c.n_kv_heads) + c.n_heads * scores
    feed_forward = 2 * c.d_model + c.d_ff * (2 if c.family == "gpt2" else 3)
    return int(tokens * bytes_per_value * (c.n_layers * (attention + feed_forward) + 2 * c.d_model))


def train_memory_bytes(
    config: ModelConfig, micro_batch_tokens: int, mixed: bool = True, muon: bool = True, workers: int = 1
) -> int:
    """Bytes that training holds: weights, gradients, optimizer state and activations.

    Args:
        config: the shape.
        micro_batch_tokens: tokens of one forward and backward pass.
        mixed: bf16 working weights beside fp32 masters; else fp32 alone.
        muon: matrices have one momentum (Muon), the rest two (AdamW); else AdamW for all.
        workers: passes side by side, each with gradients and activations of its own: one a core, at most one a row of the batch.
    """
    n, matrices = params(config), matrix_params(config)
    weights = 4 * n + (2 * n if mixed else 0)
    gradients = workers * (4 + (2 if mixed else 4)) * n  # fp32 sums, and a pass's own
    state = 4 * (matrices + 2 * (n - matrices)) if muon else 8 * n
    return weights + gradients + state + workers * activation_bytes(config, micro_batch_tokens, 2 if mixed else 4)
