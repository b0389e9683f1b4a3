"""Many HTTP clients at once on SmolLM2-135M: our server against llama.cpp's, in turns, and against our own engine without HTTP.

Each client streams one answer to a prompt of its own; all begin together. Said are tokens a second, the wait for the first token and the gaps
between pieces, and what HTTP costs: the same streams straight on the engine.

Run: python benchmarks/serve_vs_llamacpp.py --llama-server PATH     (llama.cpp's own server, built from the sources in llama-cpp-python's sdist)
     python benchmarks/serve_vs_llamacpp.py --python PATH/bin/python   (an environment with llama-cpp-python[server]: one request at a time)
llama.cpp's server from that sdist, for this very processor:
     cmake -G Ninja -B build -DGGML_NATIVE=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF vendor/llama.cpp
     ninja -C build llama-server
Its threads wait by spinning: on a machine that is busy otherwise it is many times slower than on a quiet one.
Further: [--clients 32] [--prompt 512] [--new 128] [--rounds 3] [--gguf FILE ...] [--flash] [--json]
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from generate_common import smollm2
from serve_common import (
    Process,
    ask_engine,
    burst,
    llama_cpp_python,
    llama_server,
    machine,
    ours,
    prompts,
    talk,
    version_of_llamacpp,
)

ENDS = {"0": -100, "2": -100}
"""SmolLM2's two ends, which no answer may take: all have the same length."""


def parse() -> argparse.Namespace:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--clients", type=int, default=32)
    flags.add_argument("--prompt", type=int, default=512, help="Tokens of each prompt.")
    flags.add_argument("--new", type=int, default=128, help="Tokens of each answer.")
    flags.add_argument("--rounds", type=int, default=3, help="Bursts a side.")
    flags.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    flags.add_argument("--weights", default="auto", help="Ours: auto (what serve takes), as_is, int8, int4.")
    flags.add_argument("--llama-server", type=Path, help="llama.cpp's server.")
    flags.add_argument("--python", help="Interpreter with llama-cpp-python[server].")
    flags.add_argument("--gguf", type=Path, nargs="+", help="Files for llama.cpp; default F16, made from the model.")
    flags.add_argument("--flash", action="store_true", help="Measure llama.cpp with flash attention too.")
    flags.add_argument("--patience", type=float, default=600.0, help="Longest time for a burst. Seconds.")
    flags.add_argument("--json", action="store_true", help="One object on stdout.")
    options = flags.parse_args()
    if options.llama_server is None and options.python is None:
        flags.error("name a peer: --llama-server PATH or --python PATH")
    return options


def peers(options: argparse.Namespace, files: list[Path]) -> list[Process]:
    """llama.cpp in every way that was asked for."""
    context = options.prompt + options.new + 64
    found = []
    for file in files:
        for flash in (False, True) if options.flash else (False,):
            if options.llama_server is not None:
                found.append(
                    llama_server(options.llama_server, file, options.threads, options.clients, context, flash)
                )  # fmt: skip
        if options.python is not None:
            found.append(llama_cpp_python(options.python, file, options.threads, context))
    return found


def measure(options: argparse.Namespace, source: Any, engine: Process, server: Process, others: list[Process]) -> None:  # fmt: skip
    """All sides in turns; a short burst first, which no side is judged by."""
    for turn in range(-1, options.rounds):
        length, new = (options.prompt, options.new) if turn >= 0 else (16, 4)
        texts = prompts(source, options.clients, length, turn)
        body = {"model": "model", "max_tokens": new, "temperature": 0, "stream": True, "logit_bias": ENDS}
        bodies = [{**body, "prompt": text, "stream_options": {"include_usage": True}} for text in texts]
        for side in (engine, server, *others):
            if side is engine:
                seen = ask_engine(engine, {"prompts": texts, "new": new, "logit_bias": ENDS})
            else:
                seen = burst(side.url, bodies, options.patience)
            if turn >= 0:
                assert seen.tokens == options.clients * new, f"{side.name}: {seen.tokens} tokens"
                side.seen.add(seen)


def main() -> None:
    """Measure and print."""
    options = parse()
    folder, file = smollm2()
    sides: list[Process] = []
    try:
        # One after the other: at its start each measures or warms up.
        engine = ours("engine", folder, options.threads, options.weights)
        sides.append(engine)
        server = ours("http", folder, options.threads, options.weights)
        sides.append(server)
        others = peers(options, options.gguf or [file])
        sides += others
        measure(options, talk(folder), engine, server, others)
    finally:
        for side in sides:
            side.close()
    found = {side.name: side.seen.summary() for side in (server, engine, *others)}
    best = max(others, key=lambda side: found[side.name]["tokens_per_s"])
    mine, theirs = found[server.name], found[best.name]
    # Of each round by itself: what disturbs the machine disturbs neighbours in time alike.
    pairs = zip(server.seen.bursts, engine.seen.bursts, strict=True)
    overhead = statistics.median(1 - http.rate / bare.rate for http, bare in pairs)
    version = (
        f"llama.cpp 0c1e57098 of llama-cpp-python {version_of_llamacpp(options.python) if options.python else '0.3.36'}"
    )
    result: dict[str, Any] = {
        "name": "serve_vs_llamacpp",
        "ours": round(mine["tokens_per_s"], 1),
        "peer": f"{best.name}, {version}",
        "theirs": round(theirs["tokens_per_s"], 1),
        "unit": "tokens/s",
        "ratio": round(mine["tokens_per_s"] / theirs["tokens_per_s"], 2),
        "machine": machine(),
        "clients": options.clients,
        "prompt_tokens": options.prompt,
        "new_tokens": options.new,
        "http_overhead": round(overhead, 4),
        "gaps_under_200_ms": round(mine["gaps_under_200_ms"], 4),
        "sides": {name: {key: round(value, 4) for key, value in one.items()} for name, one in found.items()},
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.clients} clients, {options.prompt} tokens in, {options.new} out; {result['machine']}; {version}")
    for name, one in found.items():
        print(
            f"{name:32s} {one['tokens_per_s']:8.1f} tokens/s (median {one['tokens_per_s_median']:.1f})   first token "
            f"{one['first_token_p50_s']:.2f} / {one['first_token_max_s']:.2f} s   gaps p50 {one['gap_p50_ms']:.0f}, "
            f"p99 {one['gap_p99_ms']:.0f}, most {one['gap_max_ms']:.0f} ms, under 200 ms {100 * one['gaps_under_200_ms']:.2f} %"
        )
    print(
        f"ratio to {best.name}: {result['ratio']} (bar 2); HTTP costs {100 * overhead:.1f} % of the engine's rate (bar 5)"
    )


if __name__ == "__main__":
    main()
