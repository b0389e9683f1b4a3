"""Training speed: gptwright against a plain PyTorch GPT-2 loop, fp32 and eager, as most tutorials write it.

Same width, depth, vocabulary and batch (16 x 512 tokens a step). Each side runs in a process of its own, in turn.
"""

import time

import torch
import torch.nn.functional as F
from torch import nn

from train_common import SEQ_LEN, VOCAB, RandomRows, compare_widths, speed_arguments, speeds, train_ours


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(d, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """GPT-2 as in nanoGPT's model.py, without dropout."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB, width), nn.Embedding(SEQ_LEN, width)
        self.blocks = nn.ModuleList(PlainBlock(width, width // 64) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCAB, bias=False)
        self.head.weight = self.tokens.weight
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(
                    p, std=0.02 / (2 * layers) ** 0.5 if name.endswith(("out.weight", "down.weight")) else 0.02
                )
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, VOCAB), targets.reshape(-1), ignore_index=-100)


def plain_optimizer(model: nn.Module, rate: float = 1e-3) -> torch.optim.AdamW:
    """AdamW with nanoGPT's settings."""
    return torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor, targets: torch.Tensor) -> float:
    loss = model(ids, targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss)


def run_plain(width: int, layers: int, steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    model, data, seconds, cpu, loss = PlainGPT(width, layers), RandomRows(), [], [], 0.0
    optimizer = plain_optimizer(model)
    for step in range(steps + 2):
        batch = data.batch(step)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        loss = plain_step(model, optimizer, torch.as_tensor(batch.tokens), torch.as_tensor(batch.targets))
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
    return speeds(seconds[2:], cpu[2:]) | {"loss": loss}


def main() -> None:
    args = speed_arguments(__doc__).parse_args()
    compare_widths(
        args,
        f"plain PyTorch {torch.__version__} GPT-2, fp32 eager",
        lambda config: train_ours(RandomRows(), config, args.steps, args.optimizer),
        lambda config: run_plain(config.d_model, config.n_layers, args.steps),
    )


if __name__ == "__main__":
    main()
