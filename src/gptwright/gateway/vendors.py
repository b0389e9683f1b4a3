"""What is known of hosted vendors: where their OpenAI-compatible API begins, how they name a few fields, what they leave out.

Google and Anthropic offer such an API beside their own, so no other wire format is spoken here. A field that a vendor's documentation calls
ignored is refused before anything is sent: nothing is dropped in silence. Looked up in November 2026:
platform.openai.com/docs/api-reference, ai.google.dev/gemini-api/docs/openai, platform.claude.com/docs/en/api/openai-sdk,
docs.mistral.ai/api/endpoint/chat, openrouter.ai/docs/api-reference.
"""

from dataclasses import dataclass
from typing import Literal

VendorName = Literal["openai", "google", "anthropic", "mistral", "openrouter"]


@dataclass(frozen=True)
class Vendor:
    """One vendor's ways.

    Attributes:
        base_url: where its API begins.
        api_key_env: the variable that its own documentation uses for the key.
        renamed: its names for fields of ours.
        unsupported: fields that it ignores or refuses.
        usage_option: whether ``stream_options`` is needed, and taken, for a stream to end with token counts.
        hottest: the highest temperature it takes; above, it would cap it in silence.
        listing_header: header that its list of models wants the key in, instead of ``Authorization``.
    """

    base_url: str
    api_key_env: str
    renamed: tuple[tuple[str, str], ...] = ()
    unsupported: frozenset[str] = frozenset()
    usage_option: bool = True
    hottest: float = 2.0
    listing_header: str | None = None


VENDORS: dict[str, Vendor] = {
    # Its reasoning models refuse max_tokens; the newer name is taken by all.
    "openai": Vendor("https://api.openai.com/v1", "OPENAI_API_KEY", (("max_tokens", "max_completion_tokens"),)),
    "google": Vendor("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "anthropic": Vendor(
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        unsupported=frozenset({"seed", "frequency_penalty", "presence_penalty", "logit_bias", "response_format"}),
        hottest=1.0,
        listing_header="x-api-key",
    ),
    "mistral": Vendor(
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        (("seed", "random_seed"),),
        unsupported=frozenset({"logit_bias"}),
        usage_option=False,
    ),
    "openrouter": Vendor("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
}

PLAIN = Vendor("", "")
"""Any other server of the OpenAI protocol: vLLM, llama.cpp, Ollama, another gptwright."""
