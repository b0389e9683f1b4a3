"""Verbs that use a model: generate, chat, serve, keys, usage, studio, learn."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, Table, group, verb
from gptwright.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    verb(
        app,
        "generate",
        ["gptwright generate 'Once upon a time'", "gptwright generate production 'Hello' --max-tokens 50"],
    )(generate)
    verb(app, "chat", ["gptwright chat", "echo 'Hello!' | gptwright chat smollm2"])(chat)
    verb(app, "serve", ["gptwright serve", "gptwright serve --port 8001"])(serve)
    verb(app, "studio", ["gptwright studio", "gptwright studio --port 8080"])(studio)
    keys = group("Keys of the API: create, list, revoke.")
    verb(keys, "create", ["gptwright keys create --name laptop", "gptwright keys create --name ci --json"])(keys_create)
    verb(keys, "list", ["gptwright keys list", "gptwright keys list --json"])(keys_list)
    verb(keys, "revoke", ["gptwright keys revoke 1", "gptwright keys revoke gw-3fA9"])(keys_revoke)
    app.add_typer(keys, name="keys")
    verb(app, "usage", ["gptwright usage", "gptwright usage --json"])(usage)
    verb(app, "learn", ["gptwright learn", "gptwright learn attention"])(learn)


_MODEL = typer.Option("--model", help="Model: id, alias, directory or provider:name [production, else the newest].")
_MAX_TOKENS = typer.Option("--max-tokens", help="Longest answer. Tokens.")
_TEMPERATURE = typer.Option("--temperature", help="0 always takes the likeliest token.")
_SEED = typer.Option("--seed", help="The same seed gives the same text.")


def generate(
    call: Call,
    prompt: Annotated[str, typer.Argument(help="Text to continue; or the model, when two are given.")],
    text: Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="Text to continue, after a model.")] = None,
    model: Annotated[str | None, _MODEL] = None,
    max_tokens: Annotated[int, _MAX_TOKENS] = 128,
    temperature: Annotated[float, _TEMPERATURE] = 0.8,
    top_k: Annotated[int, typer.Option(help="Only the k likeliest tokens; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the likeliest tokens that hold this share.")] = 0.95,
    seed: Annotated[int | None, _SEED] = None,
) -> Answer:
    """Continue a text."""
    if text is not None:
        if model is not None and model != prompt:
            raise UserError("two models are named", fix="Give the model once")
        model, prompt = prompt, text
    from gptwright.project.load import load

    loaded = load(model, project=_maybe_project(call))
    pieces: list[str] = []
    for piece in loaded.generate(
        prompt, stream=True, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    ):
        pieces.append(piece)
        if not call.json:
            print(piece, end="", flush=True)
    return Answer({"model": loaded.id, "prompt": prompt, "text": "".join(pieces)}, "\n")


def chat(
    call: Call,
    name: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Model: id, alias, directory or provider:name.")
    ] = None,
    model: Annotated[str | None, _MODEL] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    top_p: Annotated[float, typer.Option(help="Only the likeliest tokens that hold this share.")] = 0.9,
    max_tokens: Annotated[int, _MAX_TOKENS] = 128,
    temperature: Annotated[float, _TEMPERATURE] = 0.7,
    seed: Annotated[int | None, _SEED] = None,
) -> Answer:
    """Talk to a model. From a pipe, each line is a turn and the transcript is printed."""
    from gptwright.project.load import load

    loaded = load(name or model, project=_maybe_project(call))
    messages = [{"role": "system", "content": system}] if system else []
    terminal = sys.stdin.isatty()
    if terminal and not call.quiet:
        print(f"{loaded.id}: a language model, not a person. Empty line or Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            line = input("you> " if terminal else "")
        except EOFError:
            break
        if not line.strip():
            if terminal:
                break
            continue
        if not terminal and not call.json:
            print(f"you> {line}")
        messages.append({"role": "user", "content": line})
        if not call.json:
            print("gpt> ", end="", flush=True)
        pieces: list[str] = []
        turn_seed = None if seed is None else seed + len(messages)
        try:
            for piece in loaded.chat(
                messages, stream=True, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=turn_seed
            ):
                pieces.append(piece)
                if not call.json:
                    print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not terminal:
                raise
        if not call.json:
            print()
        messages.append({"role": "assistant", "content": "".join(pieces)})
    return Answer({"model": loaded.id, "messages": messages})


def _maybe_project(call: Call):  # type: ignore[no-untyped-def]
    """The project, or None where there is none: a model may be a directory."""
    try:
        return call.project()
    except UserError:
        if call.directory is not None or call.overrides:
            raise
        from pathlib import Path

        from gptwright.project.project import CONFIG_NAME

        here = Path.cwd()
        if any((folder / CONFIG_NAME).is_file() for folder in (here, *here.parents)):
            raise
        return None


def serve(
    call: Call,
    host: Annotated[str | None, typer.Option(help="Address; beyond this machine only with a key.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    engine: Annotated[str | None, typer.Option(help="What runs the model: auto, builtin or openvino.")] = None,
    no_studio: Annotated[bool, typer.Option("--no-studio", help="Only the API, no pages.")] = False,
) -> Answer:
    """Serve the OpenAI-compatible API, with the chat page at /."""
    from gptwright.cli.serving import serve_project

    serve_project(_with(call, host, port, engine), pages=not no_studio)
    return Answer({"stopped": True})


def studio(call: Call, port: Annotated[int | None, typer.Option(help="Port.")] = None) -> Answer:
    """Open the pages in the browser; the API listens on this machine only."""
    from gptwright.cli.serving import serve_project

    serve_project(_with(call, "127.0.0.1", port), pages=True, browser=True)
    return Answer({"stopped": True})


def _with(call: Call, host: str | None, port: int | None, engine: str | None = None) -> Call:
    from dataclasses import replace

    options = [f'serve.host="{host}"'] if host else []
    options += [f"serve.port={port}"] if port is not None else []
    options += [f'serve.engine="{engine}"'] if engine else []
    return replace(call, overrides=(*call.overrides, *options))


def keys_create(
    call: Call,
    name: Annotated[str, typer.Option(help="What it is for.")],
    days: Annotated[int | None, typer.Option(help="Days until it expires.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="What it is for; api, all, if left out. Repeatable.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Most requests a minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Most tokens a minute.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Most tokens a day, UTC.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Most answers at once.")] = None,
) -> Answer:
    """Create a key. It is shown once; only its hash is kept."""
    from gptwright.serve.keys import create_key
    from gptwright.serve.limits import Limits

    limits = Limits(requests_per_minute, tokens_per_minute, max_concurrent, tokens_per_day)
    lifetime_s = days * 86400.0 if days else None
    scopes = tuple(scope or ("api",))
    key, row = create_key(call.project().control, name, scopes=scopes, lifetime_s=lifetime_s, limits=limits)
    return Answer({"id": row.id, "name": row.name, "key": key}, f"{key}\nKeep it now: it is not shown again.")


def keys_list(call: Call) -> Answer:
    """List keys by their first characters."""
    from gptwright.serve.keys import list_keys

    rows = list_keys(call.project().control)
    table = Table(["id", "name", "prefix", "created", "expires", "state", "scopes", "limits"])
    for r in rows:
        limits = " ".join(f"{name}={value}" for name, value in vars(r.limits).items() if value is not None)
        expires = r.expires_at and f"{r.expires_at:%Y-%m-%d}"
        table.add(r.id, r.name, r.prefix, f"{r.created_at:%Y-%m-%d}", expires, r.state, " ".join(r.scopes), limits)
    return Answer({"keys": [asdict(r) for r in rows]}, str(table) if rows else "No keys.")


def keys_revoke(call: Call, key: Annotated[str, typer.Argument(help="Id or first characters.")]) -> Answer:
    """Revoke a key, at once and for good."""
    from gptwright.serve.keys import revoke_key

    row = revoke_key(call.project().control, key)
    return Answer(asdict(row), f"Revoked {row.name} ({row.prefix}).")


def usage(call: Call) -> Answer:
    """Show tokens used, by key and model."""
    import sqlalchemy as sa

    from gptwright.core.control import ApiKey, Usage

    with call.project().control.session() as session:
        rows = session.execute(
            sa.select(
                ApiKey.name,
                Usage.model,
                sa.func.count(),
                sa.func.sum(Usage.prompt_tokens),
                sa.func.sum(Usage.completion_tokens),
            )
            .outerjoin(ApiKey, ApiKey.id == Usage.key_id)
            .group_by(ApiKey.name, Usage.model)
            .order_by(ApiKey.name, Usage.model)
        ).all()
    table = Table(["key", "model", "requests", "prompt tokens", "answer tokens"])
    for row in rows:
        table.add(row[0] or "(none)", *row[1:])
    data = [
        dict(zip(("key", "model", "requests", "prompt_tokens", "completion_tokens"), row, strict=True)) for row in rows
    ]
    return Answer({"usage": data}, str(table) if rows else "Nothing was used yet.")


def learn(
    call: Call,
    lesson: Annotated[str | None, typer.Argument(help="tokens, attention, loss or sampling.")] = None,
    text: Annotated[str | None, typer.Option(help="A sentence of your own to look at.")] = None,
    answer: Annotated[
        float | None, typer.Option(help="Your answer to the lesson's question; exit code 3 when it is wrong.")
    ] = None,
) -> Answer:
    """Show the lessons, or work through one on your own model."""
    from gptwright.studio.lessons import lessons, open_lesson

    if lesson is None:
        found = lessons()
        table = Table(["lesson", "what you see on your own model"])
        for item in found:
            table.add(item.name, item.summary)
        return Answer({"lessons": [vars(item) for item in found]}, str(table))
    data, shown = open_lesson(_maybe_project(call), lesson, text=text, answer=answer)
    return Answer(data, shown, 3 if data.get("right") is False else 0)
