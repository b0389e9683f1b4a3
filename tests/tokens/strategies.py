"""Hypothesis strategies for texts and chats."""

from hypothesis import strategies as st

from gptwright.tokens.bpe import SPECIALS

# Scripts, spaces of every kind, contractions, digits, emoji with joiners, combining marks, long s, line ends.
HARD = [
    "don't", "DON'T", "it'ſ", " ", "  ", "\n", "\r\n", "\n\n", "\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "1234", "٣٤٥", "½",
    "naïve", "e\u0301", "日本語", "ไทย", "👩‍👩‍👧", "🇩🇪", "\ufdd0", "\x00", "_", "--", "...", "<|", "|>", "im_end", "assistant\n",
]  # fmt: skip

fragments = st.one_of(st.sampled_from(HARD), st.text(max_size=8), st.text(alphabet="abc dé\n1", max_size=12))
plain_texts = (
    st.lists(fragments, max_size=12).map("".join).filter(lambda text: not any(name in text for name in SPECIALS))
)
hostile_texts = st.lists(st.one_of(fragments, st.sampled_from(SPECIALS)), max_size=12).map("".join)


def chats(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, object]]]:
    """Conversations of any roles, tool calls included."""
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": texts}
    )
    call = st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "content": st.one_of(st.none(), texts),
            "tool_calls": st.lists(
                st.fixed_dictionaries(
                    {
                        "type": st.just("function"),
                        "function": st.fixed_dictionaries(
                            {
                                "name": texts,
                                "arguments": st.one_of(
                                    st.just('{"city": "Ulm"}'),
                                    st.dictionaries(texts, st.one_of(texts, st.integers()), max_size=2),
                                ),
                            }
                        ),
                    }
                ),
                min_size=1,
                max_size=2,
            ),
        }
    )
    return st.lists(st.one_of(message, message, call), min_size=1, max_size=5)
