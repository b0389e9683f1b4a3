"""The sides of the generation benchmarks, each in its own process and, if need be, its own environment (``--python``).

Reads lines "prompts B" or "answers B" from stdin; answers each with a line of JSON: tokens, seconds, processor seconds. Prompts are 512 random
ids, the same for every side; answers are 128 greedy tokens after them, the end of text ignored, the prompts' time not counted.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

LENGTH, NEW = 512, 128


def prompts(count: int, vocab: int = 49_000) -> list[list[int]]:
    """Distinct prompts, the same for all."""
    return [_ids(i, vocab) for i in range(count)]


def _ids(seed: int, vocab: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(100, vocab) for _ in range(LENGTH)]


Spent = tuple[float, float]  # seconds on the clock and of the processor


def spent(work: Callable[[], object]) -> Spent:
    """Time that something takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def less(whole: Spent, part: Spent) -> Spent:
    """What is left of one time after another."""
    return whole[0] - part[0], whole[1] - part[1]


class Ours:
    """gptwright's engine, without HTTP."""

    def __init__(self, folder: str, threads: int, weights: str) -> None:
        import torch

        from gptwright.infer.engine import Engine

        torch.set_num_threads(threads)
        self.engine = Engine.load(folder, torch.bfloat16, "cpu", weights=weights, speculative=False, kv_bytes=3 * 2**30)

    def _run(self, count: int, new: int) -> Spent:
        from gptwright.infer.config import GenerationConfig

        self.engine._scheduler.cache.clear()  # every run takes its prompts in anew
        config = GenerationConfig(max_tokens=new, temperature=0, ignore_eos=True)
        return spent(lambda: self.engine.generate(prompts(count), config))

    def prompts(self, count: int) -> tuple[int, Spent]:
        return count * LENGTH, self._run(count, 1)

    def answers(self, count: int) -> tuple[int, Spent]:
        return count * (NEW - 1), less(self._run(count, NEW), self._run(count, 1))


class Transformers:
    """transformers.generate, bf16, its dynamic cache."""

    def __init__(self, folder: str, threads: int, weights: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def _run(self, count: int, new: int) -> Spent:
        import torch

        ids = torch.tensor(prompts(count))
        flags = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            return spent(lambda: self.model.generate(ids, attention_mask=torch.ones_like(ids), **flags))

    def prompts(self, count: int) -> tuple[int, Spent]:
        return count * LENGTH, self._run(count, 1)

    def answers(self, count: int) -> tuple[int, Spent]:
        return count * (NEW - 1), less(self._run(count, NEW), self._run(count, 1))


class LlamaCpp:
    """llama.cpp through llama-cpp-python's low-level calls; a cache for each sequence, flash attention as asked (":fa" after the file)."""

    def __init__(self, file: str, threads: int, weights: str) -> None:
        import llama_cpp

        self.lib: Any = llama_cpp
        self.threads, self.flash = threads, weights == "fa"
        self.silence = llama_cpp.llama_log_callback(lambda *_: None)  # must outlive the library
        llama_cpp.llama_log_set(self.silence, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.context: Any = None
        self.count = 0

    def _open(self, count: int) -> None:
        if self.context is not None:
            self.lib.llama_free(self.context)
        p = self.lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = count * (LENGTH + NEW), 2048, 512, count
        p.n_threads = p.n_threads_batch = self.threads
        p.kv_unified = False
        p.flash_attn_type = int(self.flash)
        self.context = self.lib.llama_init_from_model(self.model, p)
        self.count = count

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """(token, position, sequence, logits wanted) of each row; returns the likeliest next tokens."""
        import numpy as np

        batch = self.lib.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        assert self.lib.llama_decode(self.context, batch) == 0
        best = []
        for i, row in enumerate(rows):
            if row[3]:
                logits = np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, i), (self.vocab,))
                best.append(int(logits.argmax()))
        self.lib.llama_batch_free(batch)
        return best

    def _take_in(self, count: int) -> None:
        self.last: list[int] = []
        for s, ids in enumerate(prompts(count)):
            self.last += self._decode([(t, i, s, i == LENGTH - 1) for i, t in enumerate(ids)])

    def _go_on(self) -> None:
        for step in range(NEW - 1):
            self.last = self._decode([(t, LENGTH + step, s, True) for s, t in enumerate(self.last)])

    def prompts(self, count: int) -> tuple[int, Spent]:
        self._open(count)
        return count * LENGTH, spent(lambda: self._take_in(count))

    def answers(self, count: int) -> tuple[int, Spent]:
        self.prompts(count)
        return count * (NEW - 1), spent(self._go_on)


class OpenVino:
    """OpenVINO GenAI's continuous batching on a GGUF file."""

    def __init__(self, file: str, threads: int, weights: str) -> None:
        import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 2
        scheduler.max_num_batched_tokens = 2048
        scheduler.enable_prefix_caching = False
        self.genai: Any = genai
        self.pipe = genai.ContinuousBatchingPipeline(file, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})

    def _run(self, count: int, new: int) -> Spent:
        import numpy as np
        import openvino

        config = self.genai.GenerationConfig()
        config.max_new_tokens, config.min_new_tokens, config.ignore_eos, config.do_sample = new, new, True, False
        ids = [openvino.Tensor(np.array([p], dtype=np.int64)) for p in prompts(count)]
        return spent(lambda: self.pipe.generate(ids, [config] * count))

    def prompts(self, count: int) -> tuple[int, Spent]:
        return count * LENGTH, self._run(count, 1)

    def answers(self, count: int) -> tuple[int, Spent]:
        return count * (NEW - 1), less(self._run(count, NEW), self._run(count, 1))


class OursOnOpenVino:
    """gptwright's engine with OpenVINO GenAI in the place of its own scheduler. Prompts differ from run to run, as it keeps beginnings."""

    def __init__(self, folder: str, threads: int, weights: str) -> None:
        from gptwright.infer.engine import Engine

        self.engine = Engine.load(folder, backend="openvino", kv_bytes=3 * 2**30)
        self.seen = 0

    def _run(self, count: int, new: int) -> Spent:
        from gptwright.infer.config import GenerationConfig

        self.seen += count
        fresh = [_ids(self.seen + i, 49_000) for i in range(count)]
        config = GenerationConfig(max_tokens=new, temperature=0, ignore_eos=True, logprobs=False)
        return spent(lambda: self.engine.generate(fresh, config))

    def prompts(self, count: int) -> tuple[int, Spent]:
        return count * LENGTH, self._run(count, 1)

    def answers(self, count: int) -> tuple[int, Spent]:
        return count * (NEW - 1), less(self._run(count, NEW), self._run(count, 1))


SIDES: dict[str, Any] = {
    "ours": Ours,
    "ours_openvino": OursOnOpenVino,
    "transformers": Transformers,
    "llamacpp": LlamaCpp,
    "openvino": OpenVino,
}


def main() -> None:
    """Args: side, model, threads, weights."""
    name, model, threads, weights = sys.argv[1:5]
    side = SIDES[name](model, int(threads), weights)
    print("ready", flush=True)
    for line in sys.stdin:
        what, count = line.split()
        tokens, (seconds, cpu) = getattr(side, what)(int(count))
        print(json.dumps({"tokens": tokens, "seconds": seconds, "cpu": cpu}), flush=True)


if __name__ == "__main__":
    main()
