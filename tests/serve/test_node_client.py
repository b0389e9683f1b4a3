"""OpenAI's official client for Node, if node and the package are there (``npm install openai``; NODE_PATH names where it lies)."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "unicode" }];
const whole = await client.chat.completions.create({ model: "production", messages });
let streamed = "", usage = null;
const stream = await client.chat.completions.create(
  { model: "production", messages, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
let events = [];
for await (const event of await client.responses.create({ model: "production", input: "hello", stream: true }))
  events.push(event.type);
let error = null;
try { await client.chat.completions.create({ model: "nope", messages }); }
catch (caught) { error = { status: caught.status, code: caught.code, param: caught.param }; }
console.log(JSON.stringify({ whole: whole.choices[0].message.content, total: whole.usage.total_tokens,
  streamed, usage: usage.total_tokens, events, error }));
"""


def package() -> Path | None:
    """A node_modules folder with the client in it."""
    places = [*os.environ.get("NODE_PATH", "").split(os.pathsep), str(Path(__file__).parents[2] / "node_modules")]
    return next((Path(place) for place in places if place and (Path(place) / "openai").is_dir()), None)


@pytest.mark.slow
def test_node_client_when_it_chats_then_whole_and_streamed_agree(shared: tuple[str, Any], tmp_path: Path) -> None:
    node, modules = shutil.which("node"), package()
    if node is None:
        pytest.skip("node is missing: apt-get install nodejs")
    if modules is None:
        pytest.skip("the package is missing: npm install openai, and NODE_PATH=.../node_modules")
    (tmp_path / "node_modules").symlink_to(modules, target_is_directory=True)
    script = tmp_path / "client.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [node, str(script), shared[0] + "/v1"], capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["whole"] == found["streamed"] == "Grüße 🙂 日本"
    assert found["total"] == found["usage"]
    assert found["events"][0] == "response.created"
    assert found["events"][-1] == "response.completed"
    assert found["error"] == {"status": 404, "code": "model_not_found", "param": "model"}
