"""An Ollama Modelfile for a model: the chat template in Go's language, and the parameters.

Ollama does not run Jinja. The template is not translated but measured: rendered for a few conversations, it shows what stands before and
after each role's text; from that a Go template is made, and it is kept only when it gives the same text for other conversations too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.tokens.template import render_template

Messages = Sequence[Mapping[str, str]]
_PARAMETERS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}


@dataclass(frozen=True)
class Wraps:
    """What a chat template puts around messages.

    Args:
        opening: before everything, when no system message comes first (a default system prompt, for some models).
        around: role -> text before and after a message's own; of ``system``, as the first message.
        answer: the opening of an assistant's turn at the end.
    """

    opening: str
    around: dict[str, tuple[str, str]] = field(default_factory=dict)
    answer: str = ""

    def render(self, messages: Messages) -> str:
        """What the Go template gives, with the opening of an answer."""
        parts = [] if messages and messages[0]["role"] == "system" else [self.opening]
        for message in messages:
            before, after = self.around[message["role"]]
            parts += [before, message["content"], after]
        return "".join([*parts, self.answer])

    def go_template(self) -> str:
        """The same in the language of Go's text/template. All text is quoted: there, spaces and braces mean themselves."""

        def text(value: str) -> str:
            return f"{{{{ {_go_string(value)} }}}}" if value else ""

        lines = ["{{- range $i, $message := .Messages }}"]
        if self.opening:
            lines.append(
                f'{{{{- if eq $i 0 }}}}{{{{ if ne .Role "system" }}}}{text(self.opening)}{{{{ end }}}}{{{{ end }}}}'
            )
        for number, (role, (before, after)) in enumerate(self.around.items()):
            condition = "if" if number == 0 else "else if"
            lines.append(f'{{{{- {condition} eq .Role "{role}" }}}}{text(before)}{{{{ .Content }}}}{text(after)}')
        lines += ["{{- end }}", f"{{{{- end }}}}{text(self.answer)}"]
        return "\n".join(lines)


def _go_string(value: str) -> str:
    """A string literal of Go. JSON's is one, but for surrogate pairs, which are left as characters."""
    return json.dumps(value, ensure_ascii=False)


def measure_template(source: str, special_tokens: Mapping[str, str]) -> Wraps | None:
    """Find what a Jinja chat template puts around messages.

    Args:
        source: the template.
        special_tokens: names such as bos_token that templates refer to.

    Returns:
        None when it does more than that (dates, tools, other forms by place): no Go template can be made of it here.
    """

    def jinja(messages: Messages, answer: bool = False) -> str:
        return render_template(source, messages, add_generation_prompt=answer, special_tokens=special_tokens)

    def say(*pairs: tuple[str, str]) -> Messages:
        return [{"role": role, "content": content} for role, content in pairs]

    user, answer, again = ("user", "Alpha"), ("assistant", "Beta"), ("user", "Gamma")
    try:
        one, two, three = jinja(say(user)), jinja(say(user, answer)), jinja(say(user, answer, again))
        prompted = jinja(say(user), answer=True)
    except UserError:
        return None
    if not (two.startswith(one) and three.startswith(two) and prompted.startswith(one)):
        return None
    try:
        (head, after_user), (before_answer, after_answer) = one.split("Alpha"), two[len(one) :].split("Beta")
        before_user, after_again = three[len(two) :].split("Gamma")
    except ValueError:
        return None
    if after_again != after_user or not head.endswith(before_user):
        return None
    around = {"user": (before_user, after_user), "assistant": (before_answer, after_answer)}
    opening = head.removesuffix(before_user) if before_user else head
    # Two ways to split what stands between a user's text and an answer: the opening of an answer tells.
    wraps = Wraps(opening, around, prompted[len(one) :])
    wraps = _with_role(wraps, "system", jinja, say)
    wraps = _with_role(wraps, "tool", jinja, say)
    talks = [
        say(("user", "What is 2 + 2?\nSay why.")),
        say(user, answer, ("user", "and {{ then }}?")),
        say(user, answer, again, ("assistant", "Delta {x}"), ("user", 'a "b"')),
    ]
    if "system" in wraps.around:
        talks += [say(("system", "Be brief.\nBe kind."), *[(m["role"], m["content"]) for m in talk]) for talk in talks]
    same = all(jinja(talk, answer=True) == wraps.render(talk) for talk in talks)
    return wraps if same else None


def _with_role(wraps: Wraps, role: str, jinja: Any, say: Any) -> Wraps:
    """Add a role that a template may not know: system, before everything; tool, after an assistant's turn."""
    user, answer = ("user", "Alpha"), ("assistant", "Beta")
    try:
        text = jinja(say((role, "Omega"), user) if role == "system" else say(user, answer, (role, "Omega")))
        before, after = text.split("Omega")
    except (UserError, ValueError):
        return wraps
    if role == "system":
        rest = wraps.around["user"][0] + "Alpha" + wraps.around["user"][1]
        if not after.endswith(rest):
            return wraps
        after = after.removesuffix(rest)
    else:
        start = jinja(say(user, answer))
        if not before.startswith(start):
            return wraps
        before = before.removeprefix(start)
    return Wraps(wraps.opening, {**wraps.around, role: (before, after)}, wraps.answer)


def write_modelfile(model_dir: Path, gguf_name: str, seq_len: int, license: str | None) -> tuple[str, str]:
    """The content of a Modelfile.

    Args:
        model_dir: the model's Hugging Face directory.
        gguf_name: the GGUF file beside the Modelfile.
        seq_len: the model's context. Tokens.
        license: SPDX id, if known.

    Returns:
        The text, and what became of the chat template, in words.
    """
    config = read_json(model_dir / "tokenizer_config.json") if (model_dir / "tokenizer_config.json").is_file() else {}
    generation = read_json(model_dir / "generation_config.json")
    special = {key: _content(config.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    lines = [f"FROM ./{gguf_name}"]
    file = model_dir / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    said = "no chat template"
    if isinstance(source, str):
        wraps = measure_template(source, {key: value for key, value in special.items() if value})
        said = "chat template left to Ollama's own guess (it does more than wrap messages)"
        if wraps is not None:
            # llama.cpp adds BOS itself where the vocabulary asks for it; twice would be another prompt than in training.
            bos = special["bos_token"]
            wraps = _without_bos(wraps, bos) if bos and _adds_bos(model_dir, bos) else wraps
        if wraps is not None:
            template = wraps.go_template()
            assert '"""' not in template, "would end the block"
            lines.append(f'TEMPLATE """{template}"""')
            said = "chat template measured and rewritten"
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in _stops(model_dir, generation)]
    lines.append(f"PARAMETER num_ctx {seq_len}")
    for key, name in _PARAMETERS.items():
        if isinstance(generation.get(key), int | float):
            lines.append(f"PARAMETER {name} {generation[key]}")
    if license:
        lines.append(f'LICENSE "{license}"')
    return "\n".join(lines) + "\n", said


def _content(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")


def _without_bos(wraps: Wraps, bos: str) -> Wraps | None:
    """The same without BOS at the very beginning; None where each user's turn has one (Llama 2): the first alone cannot be left out."""
    if wraps.around["user"][0].startswith(bos):
        return None
    around = dict(wraps.around)
    if "system" in around:
        around["system"] = (around["system"][0].removeprefix(bos), around["system"][1])
    return Wraps(wraps.opening.removeprefix(bos), around, wraps.answer)


def _adds_bos(model_dir: Path, bos: str) -> bool:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    return tokenizer.encode("a").ids[:1] == [tokenizer.token_to_id(bos)]


def _stops(model_dir: Path, generation: Mapping[str, Any]) -> list[str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    ids = generation.get("eos_token_id")
    ids = [] if ids is None else [ids] if isinstance(ids, int) else ids
    return [token for token in (tokenizer.id_to_token(i) for i in ids) if token]
