"""Crawlers that gather text to train models, by the token that robots.txt names them with.

A site that shuts these out reserves its texts from training, whoever asks. Crawlers for search and assistants that act for one reader
(OAI-SearchBot, PerplexityBot, ChatGPT-User, ...) are left out: to forbid them says nothing about training.

Source: the operators' own pages where named, else the public list ai.robots.txt (github.com/ai-robots-txt/ai.robots.txt) as of LISTED_ON.
"""

from typing import NamedTuple

LISTED_ON = "2026-08-22"
_LIST = "https://github.com/ai-robots-txt/ai.robots.txt"


class Agent(NamedTuple):
    """A crawler: its token, who runs it, and the page that says what it does."""

    token: str
    operator: str
    source: str = _LIST


AGENTS = (
    Agent("GPTBot", "OpenAI", "https://platform.openai.com/docs/bots"),
    Agent("ClaudeBot", "Anthropic", "https://support.anthropic.com/en/articles/8896518"),
    Agent("anthropic-ai", "Anthropic"),
    Agent("Claude-Web", "Anthropic"),
    Agent("CCBot", "Common Crawl", "https://commoncrawl.org/ccbot"),
    Agent(
        "Google-Extended",
        "Google",
        "https://developers.google.com/search/docs/crawling-indexing/google-common-crawlers",
    ),
    Agent("Google-CloudVertexBot", "Google"),
    Agent("Applebot-Extended", "Apple", "https://support.apple.com/en-us/119829"),
    Agent("Bytespider", "ByteDance"),
    Agent("TikTokSpider", "ByteDance"),
    Agent("meta-externalagent", "Meta", "https://developers.facebook.com/docs/sharing/webmasters/web-crawlers"),
    Agent("FacebookBot", "Meta"),
    Agent("Amazonbot", "Amazon", "https://developer.amazon.com/amazonbot"),
    Agent("bedrockbot", "Amazon"),
    Agent("AI2Bot", "Ai2", "https://allenai.org/crawler"),
    Agent("Ai2Bot-Dolma", "Ai2", "https://allenai.org/crawler"),
    Agent("cohere-ai", "Cohere"),
    Agent("cohere-training-data-crawler", "Cohere"),
    Agent("DeepSeekBot", "DeepSeek"),
    Agent("ChatGLM-Spider", "Zhipu AI"),
    Agent("PanguBot", "Huawei"),
    Agent("Diffbot", "Diffbot"),
    Agent("omgili", "Webz.io"),
    Agent("omgilibot", "Webz.io"),
    Agent("Webzio-Extended", "Webz.io"),
    Agent("Timpibot", "Timpi"),
    Agent("YandexAdditional", "Yandex"),
    Agent("YandexAdditionalBot", "Yandex"),
    Agent("ICC-Crawler", "NICT"),
    Agent("SBIntuitionsBot", "SB Intuitions"),
    Agent("Cotoyogi", "ROIS"),
    Agent("img2dataset", "img2dataset"),
    Agent("LAIONDownloader", "LAION"),
    Agent("laion-huggingface-processor", "LAION"),
    Agent("Kangaroo Bot", "Kangaroo"),
    Agent("VelenPublicWebCrawler", "Velen"),
    Agent("Factset_spyderbot", "Factset"),
    Agent("FriendlyCrawler", "unknown"),
    Agent("ISSCyberRiskCrawler", "ISS-Corporate"),
    Agent("Brightbot", "Bright Data"),
    Agent("Panscient", "Panscient"),
    Agent("YouBot", "You.com"),
    Agent("Sidetrade indexer bot", "Sidetrade"),
    Agent("MyCentralAIScraperBot", "unknown"),
)
TOKENS = tuple(agent.token for agent in AGENTS)
