"""Each open family, as transformers saves it, gives the same logits and the same greedy tokens here, with a cache and without."""

import json
from pathlib import Path

import pytest
import torch
from tests.model.families import KINDS, ids_of, saved

from gptwright.core.errors import UserError
from gptwright.infer.cache import PagedCache
from gptwright.infer.native import NativeRunner, library
from gptwright.infer.runner import Part, Runner
from gptwright.model import cost
from gptwright.model.io import load_model, save_model
from gptwright.model.native import native
from gptwright.model.transformer import Transformer

TOLERANCE = 1e-4


@torch.no_grad()
def logits_of(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_directory_of_an_open_family_when_loaded_gives_transformers_logits(kind: str, tmp_path: Path) -> None:
    peer, folder = saved(kind, tmp_path / "theirs", max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").is_file()
    model, ids = load_model(folder), ids_of()
    with torch.no_grad():
        expected = peer(ids).logits
    assert expected.std() > 0.3
    assert (logits_of(model, ids) - expected).abs().max() < TOLERANCE
    assert cost.params(model.config) == sum(p.numel() for p in model.parameters()) == peer.num_parameters()


@pytest.mark.parametrize("kind", KINDS)
def test_directory_when_written_again_opens_in_transformers_with_the_same_logits(kind: str, tmp_path: Path) -> None:
    import transformers

    peer, folder = saved(kind, tmp_path / "theirs")
    again = save_model(load_model(folder), tmp_path / "ours")
    assert load_model(again).config == load_model(folder).config
    reopened = transformers.AutoModelForCausalLM.from_pretrained(again, dtype=torch.float32).eval()
    assert type(reopened) is type(peer)
    with torch.no_grad():
        assert torch.equal(reopened(ids_of()).logits, peer(ids_of()).logits)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_a_cache_when_compared_gives_transformers_greedy_tokens(
    kind: str, compiled: bool, tmp_path: Path
) -> None:
    if compiled and library() is None:
        pytest.skip("no C++ compiler")
    peer, folder = saved(kind, tmp_path / "theirs")
    model, prompt = load_model(folder), ids_of(t=17)[:1]
    theirs = peer.generate(
        prompt, max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=0, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    runner = NativeRunner(model, 320, "fp32") if compiled else Runner(model, 320)
    cache = PagedCache(model.config, torch.float32)
    ids = prompt[0].tolist()
    lease = cache.open(ids, len(ids) + 16)
    assert lease is not None
    with torch.inference_mode():
        runner.forward(cache, [Part(ids[:11], 0, lease)])  # in two pieces, so that the second looks back over the first
        logits = runner.forward(cache, [Part(ids[11:], 11, lease)])
        for step, expected in enumerate(theirs.logits):
            assert (logits[0] - expected[0]).abs().max() < TOLERANCE
            ids.append(int(theirs.sequences[0, 17 + step]))
            logits = runner.forward(cache, [Part(ids[-1:], len(ids) - 1, lease)])


def test_window_when_it_cuts_then_far_tokens_change_nothing(tmp_path: Path) -> None:
    _, folder = saved("mistral_window", tmp_path / "m")
    model = load_model(folder)
    assert model.config.window == 9
    ids = ids_of()[:1]
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % 320
    gaps = (logits_of(model, ids) - logits_of(model, changed)).abs().amax(-1)[0]
    reach = model.config.n_layers * (9 - 1)  # each layer looks 8 tokens further back
    assert gaps[reach + 1 :].max() == 0
    assert gaps[reach] > 0


@pytest.mark.parametrize("kind", ["qwen2", "mistral_window", "llama3", "gpt2", "qwen3"])
@pytest.mark.parametrize("t", [8, 30])
def test_training_kernels_when_used_on_an_open_family_give_the_same_loss_and_gradients(
    kind: str, t: int, tmp_path: Path
) -> None:
    from gptwright.model.kernels import Kernels

    library = native()
    if library is None:
        pytest.skip("no C++ compiler")
    _, folder = saved(kind, tmp_path / "m")
    results = []
    for kernels in (None, Kernels(library, torch.float32)):
        model = load_model(folder)
        model.kernels = kernels
        loss = torch.nn.functional.cross_entropy(model.logits(model(ids_of(t=t))).flatten(0, 1), ids_of(t=t).flatten())
        loss.backward()
        results.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (plain, expected), (fast, found) = results
    assert torch.allclose(plain, fast, atol=1e-5)
    for name, gradient in expected.items():
        assert gradient is not None, name
        assert (gradient - found[name]).abs().max() < 1e-4 * max(1, gradient.abs().max()), name


def hostile_index(folder: Path, value: object) -> Path:
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"][next(iter(data["weight_map"]))] = value
    index.write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/x.safetensors", "weights.bin", "a\\b.safetensors", 7])
def test_index_when_it_points_out_of_the_folder_is_refused(name: object, tmp_path: Path) -> None:
    _, folder = saved("smollm2", tmp_path / "m", max_shard_size="60KB")
    with pytest.raises(UserError, match="which is no safetensors file beside it"):
        load_model(hostile_index(folder, name))


def test_index_when_a_shard_is_missing_or_it_is_empty_says_so(tmp_path: Path) -> None:
    _, folder = saved("smollm2", tmp_path / "m", max_shard_size="60KB")
    with pytest.raises(UserError, match=r"nowhere\.safetensors: no such file"):
        load_model(hostile_index(folder, "nowhere.safetensors"))
    (folder / "model.safetensors.index.json").write_text("[1]")
    with pytest.raises(UserError, match="has no weight_map"):
        load_model(folder)


def test_header_when_it_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    _, folder = saved("smollm2", tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes((2**40).to_bytes(8, "little") + weights.read_bytes()[8:])
    with pytest.raises(UserError, match=r"model\.safetensors: not a readable"):
        load_model(folder)


def test_weights_when_quantized_or_with_rows_moved_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, folder = saved("smollm2", tmp_path / "m")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    q, k = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
    moved = {q: tensors[q][:-8].contiguous(), k: torch.cat([tensors[k], tensors[q][-8:]])}
    save_file(tensors | moved, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"q_proj\.weight gives shape .* asks for 48 rows"):
        load_model(folder)
    save_file(tensors | {q: tensors[q].to(torch.int8)}, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="int8: the weights are quantized"):
        load_model(folder)


ODD = [-1, 2**62, 10**30, float("nan"), None, "x", {}]


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "mistral_window"])
def test_config_when_any_value_is_odd_is_read_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    _, folder = saved(kind, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    refused = 0
    for key in config:
        for value in ODD:
            (folder / "config.json").write_text(json.dumps(config | {key: value}))
            try:
                load_model(folder)
            except UserError:
                refused += 1
    assert refused > 30
