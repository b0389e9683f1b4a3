"""Low-rank adapters: a small trained update beside frozen weights, on disk a PEFT directory.

Our matrices are fused (queries, keys and values in one); an adapter keeps one pair of factors for each part, as PEFT has them, so the
directory opens there with the same logits.

Source: LoRA (Hu et al. 2021, arXiv 2106.09685); PEFT's file format.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_dir, read_json, write_json
from gptwright.model.hf import Entry, entries
from gptwright.model.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GROUPS = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj", "attn.c_attn", "attn.c_proj"),
    "feed_forward": ("gate_proj", "up_proj", "down_proj", "mlp.c_fc", "mlp.c_proj"),
}


class LoraLinear(nn.Linear):
    """A frozen linear layer plus scaled low-rank updates of parts of its rows.

    Its weight keeps its name, so that the model's own parameters are found as before. Only calling the module applies the update.

    Args:
        base: the layer to take over; its tensors are shared, not copied.
        parts: (name, rows, adapted) of each part, in the order of the rows.
        rank: width of the factors.
        alpha: the update is scaled by alpha / rank.
    """

    def __init__(self, base: nn.Linear, parts: Sequence[tuple[str, int, bool]], rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.parts, self.rank, self.scale = list(parts), rank, alpha / rank
        adapted = [(name, rows) for name, rows, on in parts if on]
        self.lora_a = nn.ParameterDict(
            {name: nn.Parameter(base.weight.new_empty(rank, base.in_features)) for name, _ in adapted}
        )
        self.lora_b = nn.ParameterDict(
            {name: nn.Parameter(base.weight.new_zeros(rows, rank)) for name, rows in adapted}
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        # One product for all down-projections: they share their input.
        low = torch.split(F.linear(x, torch.cat(list(self.lora_a.values()))), self.rank, dim=-1)
        low_of = dict(zip(self.lora_a.keys(), low, strict=True))
        updates = [
            F.linear(low_of[name], self.lora_b[name]) if on else x.new_zeros(*x.shape[:-1], rows)
            for name, rows, on in self.parts
        ]
        update = updates[0] if len(updates) == 1 else torch.cat(updates, dim=-1)
        return F.linear(x, self.weight, self.bias) + self.scale * update

    def delta(self) -> Tensor:
        """The update as a matrix (out, in), in fp32."""
        return self.scale * torch.cat(
            [
                self.lora_b[name].float() @ self.lora_a[name].float()
                if on
                else torch.zeros(rows, self.in_features, device=self.weight.device)
                for name, rows, on in self.parts
            ]
        )


def target_names(family: str) -> tuple[str, ...]:
    """Every module that can be adapted, by its Hugging Face name."""
    gpt2 = family == "gpt2"
    return tuple(n for group in GROUPS.values() for n in group if ("c_" in n) == gpt2)


def apply_lora(
    model: Transformer, rank: int = 16, alpha: float = 32.0, targets: Sequence[str] = ("all",), seed: int = 0
) -> list[nn.Parameter]:
    """Freeze a model and give it adapters, in place. At first they change nothing (B is zero).

    Args:
        model: without adapters.
        rank: width of the factors.
        alpha: the update is scaled by alpha / rank.
        targets: "all", "attention", "feed_forward", or Hugging Face module names such as "q_proj".
        seed: of the factors A (uniform, as in PEFT).

    Returns:
        The parameters to train.

    Raises:
        UserError: there is no such target.
        ValueError: the model has adapters already, or rank < 1.
    """
    if rank < 1:
        raise ValueError("rank must be at least 1")
    if any(isinstance(module, LoraLinear) for module in model.modules()):
        raise ValueError("the model has adapters already; merge them first")
    known = target_names(model.config.family)
    wanted: set[str] = set()
    for target in targets:
        names = known if target == "all" else [n for n in GROUPS.get(target, (target,)) if n in known]
        if not names:
            raise UserError(
                f"no module {target} to adapt", fix=f"Choose from all, attention, feed_forward, {', '.join(known)}"
            )
        wanted.update(names)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for entry, names in _matrices(model):
        if wanted.isdisjoint(names):
            continue
        path, _, _ = entry.ours.rpartition(".")
        parent_path, _, child = path.rpartition(".")
        parent = model.get_submodule(parent_path)
        base = getattr(parent, child)
        parts = [(_key(name), rows, name in wanted) for name, rows in zip(names, entry.rows, strict=True)]
        layer = LoraLinear(base, parts, rank, alpha)
        with torch.no_grad():
            for a in layer.lora_a.values():
                # kaiming_uniform_(a=sqrt(5)), spelled out for the sake of the generator
                bound = 1 / math.sqrt(layer.in_features)
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
        layer.train(base.training)
        setattr(parent, child, layer)
    return lora_parameters(model)


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The adapters' parameters."""
    return [p for m in model.modules() if isinstance(m, LoraLinear) for p in (*m.lora_a.values(), *m.lora_b.values())]


def has_lora(model: nn.Module) -> bool:
    """Whether a model carries adapters."""
    return any(isinstance(module, LoraLinear) for module in model.modules())


@torch.no_grad()
def merge_lora(model: Transformer) -> Transformer:
    """Add the adapters to the weights and take them out, in place; every parameter is trainable again. Returns the model."""
    for path, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            merged = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
            merged.weight = nn.Parameter((module.weight.float() + module.delta()).to(module.weight.dtype))
            if module.bias is not None:
                merged.bias = module.bias
            parent_path, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent_path), child, merged.train(module.training))
    model.requires_grad_(True)
    return model


def save_adapter(
    model: Transformer, directory: str | Path, base: str | Path, extra: dict[str, Any] | None = None
) -> Path:
    """Write the adapters as a PEFT directory.

    Args:
        model: with adapters.
        directory: replaced as a whole.
        base: path or name of the base model, for adapter_config.json.
        extra: further JSON files, name -> content (for example the manifest).

    Returns:
        ``directory``.
    """
    layers = [m for m in model.modules() if isinstance(m, LoraLinear)]
    if not layers:
        raise ValueError("the model has no adapters")
    tensors: dict[str, Tensor] = {}
    targets: set[str] = set()
    for layer, entry, names in _lora_layers(model):
        for their, name in zip(entry.theirs, names, strict=True):
            if _key(name) in layer.lora_a:
                targets.add(name)
                module = their.removesuffix(".weight")
                tensors[f"base_model.model.{module}.lora_A.weight"] = (
                    layer.lora_a[_key(name)].detach().cpu().contiguous()
                )
                tensors[f"base_model.model.{module}.lora_B.weight"] = (
                    layer.lora_b[_key(name)].detach().cpu().contiguous()
                )
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": layers[0].rank,
        "lora_alpha": layers[0].scale * layers[0].rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": model.config.family == "gpt2",
        "target_modules": sorted(targets),
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    with atomic_dir(directory) as folder:
        write_json(folder / CONFIG, config)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        for name, content in (extra or {}).items():
            write_json(folder / name, content)
    return Path(directory)


def is_adapter(directory: str | Path) -> bool:
    """Whether a directory is a PEFT adapter."""
    return (Path(directory) / CONFIG).is_file()


def read_base(directory: str | Path) -> Path:
    """The base model's directory that an adapter names; a relative path is seen from the adapter, then from the working directory.

    Raises:
        UserError: it is not on this machine.
    """
    folder = Path(directory)
    name = str(read_json(folder / CONFIG).get("base_model_name_or_path") or "")
    for candidate in (folder / name, Path(name)):
        if name and (candidate / "config.json").is_file():
            return candidate
    raise UserError(
        f"its base model {name or '(unnamed)'} is not on this machine",
        where=str(folder),
        fix=f"Set base_model_name_or_path in {CONFIG}",
    )


def load_adapter(model: Transformer, directory: str | Path) -> list[nn.Parameter]:
    """Put a PEFT directory's adapters on a model, in place (frozen base, as ``apply_lora``).

    Returns:
        The adapters' parameters.

    Raises:
        UserError: it is no LoRA adapter for this model, or uses a variant that is not built here.
    """
    folder = Path(directory)
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise UserError(
            f"peft_type {config.get('peft_type')} is not supported",
            where=str(folder / CONFIG),
            fix="Use a LoRA adapter",
        )
    for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform"):
        if config.get(key):
            raise UserError(f"{key} is not supported", where=str(folder / CONFIG), fix="Use a plain LoRA adapter")
    if config.get("bias", "none") != "none":
        raise UserError(
            "trained biases are not supported", where=str(folder / CONFIG), fix='Use an adapter with bias = "none"'
        )
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"not a readable safetensors file ({error})", where=str(folder / WEIGHTS), fix="Fetch it again"
        ) from error
    known = target_names(model.config.family)
    modules = {name.removesuffix(".weight").rpartition(".lora_")[0] for name in tensors}
    targets = [name for name in known if any(module.endswith(f".{name}") for module in modules)]
    if not targets:
        raise UserError("adapts no module that this model has", where=str(folder), fix="Use it with its own base model")
    apply_lora(model, int(config["r"]), float(config["lora_alpha"]), targets)
    used: set[str] = set()
    with torch.no_grad():
        for layer, entry, names in _lora_layers(model):
            for their, name in zip(entry.theirs, names, strict=True):
                if _key(name) not in layer.lora_a:
                    continue
                for letter, factors in (("A", layer.lora_a), ("B", layer.lora_b)):
                    key = f"base_model.model.{their.removesuffix('.weight')}.lora_{letter}.weight"
                    value = tensors.get(key)
                    if value is None or value.shape != factors[_key(name)].shape:
                        found = "is missing" if value is None else f"has shape {tuple(value.shape)}"
                        raise UserError(
                            f"tensor {key} {found}", where=str(folder / WEIGHTS), fix="Use it with its own base model"
                        )
                    factors[_key(name)].copy_(value)
                    used.add(key)
    if unused := sorted(set(tensors) - used):
        raise UserError(
            f"tensor {unused[0]} has no place in this model",
            where=str(folder / WEIGHTS),
            fix="Use it with its own base model",
        )
    return lora_parameters(model)


def _matrices(model: Transformer) -> Iterator[tuple[Entry, list[str]]]:
    """The blocks' matrices with the short Hugging Face names of their parts ("q_proj", or "attn.c_proj" for GPT-2)."""
    depth = 2 if model.config.family == "gpt2" else 1
    known = target_names(model.config.family)
    for entry in entries(model.config):
        names = [".".join(their.removesuffix(".weight").split(".")[-depth:]) for their in entry.theirs]
        if entry.ours.endswith(".weight") and all(name in known for name in names):
            yield entry, names


def _lora_layers(model: Transformer) -> Iterator[tuple[LoraLinear, Entry, list[str]]]:
    for entry, names in _matrices(model):
        module = model.get_submodule(entry.ours.removesuffix(".weight"))
        if isinstance(module, LoraLinear):
            yield module, entry, names


def _key(name: str) -> str:
    """A parameter's name cannot hold a dot."""
    return name.replace(".", "_")
