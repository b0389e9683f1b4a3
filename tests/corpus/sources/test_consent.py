"""Consent signals: each place where one can stand, its evidence word for word, and that the most restrictive wins."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.sources import consent
from gptwright.corpus.sources.agents import AGENTS
from gptwright.corpus.sources.consent import OptOut
from gptwright.corpus.sources.robots import Site

AT = datetime(2026, 5, 1, tzinfo=UTC)
URL = "https://example.org/blog/post?id=1"


def bits(signals: list[consent.Signal]) -> int:
    return consent.facts_of(signals).optout


def site(robots: str = "", tdmrep: str | None = None) -> Site:
    return Site("https://example.org", "rules", "", robots, tdmrep, AT)


@pytest.mark.parametrize(
    ("header", "value", "seen"),
    [
        ("X-Robots-Tag", "noai, noimageai", OptOut.NOAI | OptOut.NOIMAGEAI),
        ("X-Robots-Tag", "NoML", OptOut.NOAI),
        ("X-Robots-Tag", "noindex", OptOut.NOINDEX),
        ("X-Robots-Tag", "none", OptOut.NOINDEX),
        ("X-Robots-Tag", "noarchive", OptOut.NOARCHIVE),
        ("X-Robots-Tag", "googlebot: noindex, nofollow", 0),
        ("X-Robots-Tag", "GPTBot: noindex", OptOut.NOAI),
        ("X-Robots-Tag", "gptwright: noindex", OptOut.NOINDEX),
        ("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noai", OptOut.NOAI),
        ("X-Robots-Tag", "max-snippet:-1, index, follow", 0),
        ("tdm-reservation", "1", OptOut.TDM),
        ("tdm-reservation", "0", 0),
        ("Content-Usage", "train-ai=n", OptOut.CONTENT_USAGE),
        ("Content-Usage", "search=y, train-ai=n", OptOut.CONTENT_USAGE),
        ("Content-Usage", "train-ai=y, search=n", 0),
        ("Content-Usage", "train-ai=n;x=1, search", OptOut.CONTENT_USAGE),
        ("Content-Usage", "tdm=n", OptOut.CONTENT_USAGE),
        ("Content-Usage", "train-ai", 0),
        ("Content-Signal", "ai-train=no, search=yes", OptOut.CONTENT_SIGNAL),
        ("Content-Signal", "ai-train=yes, ai-input=no", 0),
        ("X-Other", "noai", 0),
    ],
)
def test_header_signals_when_said_then_the_bit_and_the_words(header: str, value: str, seen: int) -> None:
    signals = consent.header_signals([(header, value)], URL, AT)
    assert bits(signals) == seen
    for signal in signals:
        assert (signal.where, signal.place, signal.at) == ("header", URL, AT)
        assert signal.text == f"{header}: {value}"


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("robots", "index, noai", OptOut.NOAI),
        ("ROBOTS", "NOINDEX", OptOut.NOINDEX),
        ("googlebot", "noindex", 0),
        ("ccbot", "nofollow, noindex", OptOut.NOAI),
        ("tdm-reservation", "1", OptOut.TDM),
        ("content-usage", "train-ai=n", OptOut.CONTENT_USAGE),
        ("description", "noai", 0),
    ],
)
def test_meta_signals_when_said_then_the_bit(name: str, content: str, seen: int) -> None:
    assert bits(consent.meta_signals([(name, content)], URL)) == seen


@pytest.mark.parametrize("agent", [agent.token for agent in AGENTS])
def test_robots_when_an_agent_that_gathers_training_data_is_shut_out_then_seen(agent: str) -> None:
    signals = site(f"User-agent: *\nAllow: /\n\nUser-agent: {agent}\nDisallow: /\n").signals(URL)
    assert bits(signals) == OptOut.ROBOTS_AI
    assert agent in signals[0].text
    assert signals[0].place == "https://example.org/robots.txt"


@pytest.mark.parametrize(
    ("robots", "seen"),
    [
        ("User-agent: PerplexityBot\nUser-agent: ChatGPT-User\nDisallow: /", 0),
        ("User-agent: GPTBot\nDisallow: /shop/", 0),
        ("User-agent: GPTBot\nDisallow: /\nAllow: /blog/", 0),
        ("User-agent: *\nDisallow: /blog/", OptOut.ROBOTS_SELF),
        ("User-agent: gptwright\nDisallow:\nUser-agent: *\nDisallow: /", 0),
        ("User-agent: gptwright\nDisallow: /\nUser-agent: *\nDisallow:", OptOut.ROBOTS_SELF),
        ("User-agent: *\nContent-Usage: train-ai=n", OptOut.CONTENT_USAGE),
        ("User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /blog/ train-ai=y", 0),
        ("User-agent: *\nContent-Usage: train-ai=y\nContent-Usage: /blog/ train-ai=n", OptOut.CONTENT_USAGE),
        ("User-agent: *\nContent-Usage: /blog/ train-ai=y\nContent-Usage: /blog/ train-ai=n", OptOut.CONTENT_USAGE),
        ("User-agent: *\nContent-Usage: /shop/ train-ai=n", 0),
        ("User-agent: *\nAllow: /\nContent-Signal: search=yes,ai-train=no,use=reference", OptOut.CONTENT_SIGNAL),
        ("User-agent: *\nContent-signal:search=yes", 0),
        ("Content-Signal: ai-train=no", OptOut.CONTENT_SIGNAL),
        ("User-agent: Googlebot\nContent-Signal: ai-train=no", 0),
        ("User-agent: *\nContent-Signal: ai-train=yes\nUser-agent: CCBot\nContent-Signal: ai-train=no", OptOut.CONTENT_SIGNAL),
        ("# User-agent: GPTBot\n# Disallow: /\nUser-agent: *\nDisallow:", 0),
    ],
)  # fmt: skip
def test_robots_when_groups_speak_then_those_that_concern_us(robots: str, seen: int) -> None:
    assert bits(site(robots).signals(URL)) == seen


@pytest.mark.parametrize(
    ("rules", "seen"),
    [
        ('[{"location": "/", "tdm-reservation": 1}]', OptOut.TDM),
        ('[{"location": "/blog/*", "tdm-reservation": 1, "tdm-policy": "https://example.org/p"}]', OptOut.TDM),
        ('[{"location": "/shop/", "tdm-reservation": 1}]', 0),
        ('[{"location": "/blog/", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]', 0),
        ('[{"location": "/blog/post$", "tdm-reservation": 1}]', 0),
        ('{"location": "/", "tdm-reservation": 1}', OptOut.TDM),
        ("<html>not found</html>", 0),
        ("[" * 100_000, 0),
        ('[1, null, {"location": 3}]', 0),
    ],
)
def test_tdmrep_when_rules_stand_then_the_first_that_matches(rules: str, seen: int) -> None:
    signals = site(tdmrep=rules).signals(URL)
    assert bits(signals) == seen
    assert all(signal.place == "https://example.org/.well-known/tdmrep.json" for signal in signals)


def test_signals_when_they_disagree_then_the_most_restrictive_wins_and_all_are_evidence() -> None:
    signals = [
        *consent.header_signals([("tdm-reservation", "0"), ("Content-Usage", "train-ai=y")], URL, AT),
        *site("User-agent: *\nContent-Usage: train-ai=n", '[{"location": "/", "tdm-reservation": 1}]').signals(URL),
    ]
    facts = consent.facts_of(signals)
    assert facts.optout == OptOut.TDM | OptOut.CONTENT_USAGE
    assert consent.opted_out(facts.optout)
    assert sorted((one["where"], one["signal"]) for one in facts.consent) == [
        ("header", "permission"),
        ("header", "permission"),
        ("robots.txt", "content_usage"),
        ("tdmrep.json", "tdm"),
    ]


def test_signals_when_seen_again_then_the_time_they_were_first_seen_stays() -> None:
    first = consent.facts_of(consent.header_signals([("X-Robots-Tag", "noai")], URL, AT))
    later = consent.header_signals([("X-Robots-Tag", "noai")], URL, datetime(2026, 9, 9, tzinfo=UTC))
    assert consent.facts_of(later, first.consent) == first


@pytest.mark.parametrize(
    ("seen", "dropped"), [(0, False), (8, False), (256, False), (2, True), (4, True), (32 | 8, True)]
)
def test_opted_out_when_bits_are_set_then_only_those_about_training_on_text_drop_it(seen: int, dropped: bool) -> None:
    assert consent.opted_out(seen) is dropped


def test_optout_when_kept_in_files_then_its_numbers_never_change() -> None:
    assert {bit.name: int(bit) for bit in OptOut} == {
        "ROBOTS_SELF": 1, "ROBOTS_AI": 2, "NOAI": 4, "NOIMAGEAI": 8, "NOINDEX": 16, "TDM": 32, "CONTENT_USAGE": 64,
        "CONTENT_SIGNAL": 128, "NOARCHIVE": 256,
    }  # fmt: skip
    assert set(consent.EXPLAINED) == set(OptOut)


LINES = st.sampled_from(
    ["User-agent: *", "User-agent: GPTBot", "user-agent:gptwright", "Disallow: /", "Allow: /blog", "Content-Usage: train-ai=n", "Content-Usage:/b*g",
     "Content-Signal: /x$ ai-train=no", "Content-Usage: ,=;=", "Sitemap: x", ":", "#", "Crawl-delay: 1e999", "Disallow: /*" + "*" * 50 + "x"]
)  # fmt: skip


@given(st.lists(LINES | st.text(max_size=30), max_size=12), st.text(max_size=80), st.text("/ab*?%", max_size=20))
def test_signals_when_files_and_headers_are_anything_then_no_error_and_bits_that_are_known(
    robots: list[str], value: str, path: str
) -> None:
    url = f"https://example.org/{path}"
    found = site("\n".join(robots), value).signals(url)
    for name in ("X-Robots-Tag", "tdm-reservation", "Content-Usage", "Content-Signal"):
        found += consent.header_signals([(name, value)], url)
    found += consent.meta_signals([("robots", value), (value, "noai")], url)
    assert 0 <= bits(found) < 512


@given(st.lists(LINES, max_size=8), st.booleans())
def test_robots_when_a_refusal_is_added_then_nothing_is_taken_back(robots: list[str], first: bool) -> None:
    refusal = "User-agent: *\nContent-Usage: train-ai=n"
    text = "\n".join([refusal, *robots] if first else [*robots, refusal])
    named = "gptwright" in text and "user-agent:gptwright" in text
    seen = bits(site(text).signals(URL))
    # Our own group, where there is one, stands for *; else a refusal to all holds whatever else is said.
    longer = any(line.startswith(("Content-Usage:/b", "Content-Usage: ,")) for line in robots)
    assert named or longer or seen & OptOut.CONTENT_USAGE
