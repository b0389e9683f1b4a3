"""Wikitext to plain text: what goes, what stays, and that no nesting makes it slow."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus.wikitext import plain_text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''it'' and '''''both'''''.", "Bold and it and both."),
        ("a {{x|{{y|{{{z|1}}}}}|q}} b", "a b"),
        ("a {{open and never closed", "a open and never closed"),
        ("a }} b", "a b"),
        ("before\n{|\n! h\n|-\n| a || {{t|\n|}} || c\n|}\nafter", "before\n\nafter"),
        ("x\n{|\n| a\n{|\n| inner\n|}\n|}\ny", "x\n\ny"),
        ("x\n{|\n| never closed\ntext", "x\n\ntext"),
        ("See [[Paris]], [[Lyon|the city]] and [[:Category:Towns]].", "See Paris, the city and Category:Towns."),
        ("[[File:A.jpg|thumb|A [[cat]] on a {{x}} [[mat|rug]]]]Text[[Category:Cats]]", "Text"),
        ("[[Datei:A.jpg|mini|Bild]]Wort [[Kategorie:K]]", "Wort"),
        ("[[de:Katze]]Cat", "Cat"),
        ("[[Cat (animal)|]] x", "Cat x"),
        ("[https://x.org the site], [https://x.org], https://y.org [not a link]", "the site, , https://y.org [not a link]"),
        ("fact<ref name=a>{{cite}} text</ref>, more<ref name=\"a\" />. <!-- gone --> end", "fact, more. end"),
        ("a <!-- never closed", "a"),
        ("<nowiki>'''[[not]] {{markup}}'''</nowiki> &amp;amp; &lt;b&gt;", "'''[[not]] {{markup}}''' &amp; <b>"),
        ("Energy <math>E = m\n c^2</math>.", "Energy $E = m c^2$."),
        ("<syntaxhighlight lang=c>\nint a[[2]];\n  b;\n</syntaxhighlight>", "int a[[2]];\n  b;"),
        ("== One ==\ntext\n=== Two ===\n* a\n** b\n# c\n: d\n; e", "One\n\ntext\n\nTwo\n\n- a\n  - b\n- c\nd\ne"),
        ("== See also ==\n{{x}}\n== Full ==\n=== Deep ===\nwords\n== Last ==\n", "Full\n\nDeep\n\nwords"),
        ("Paris ({{IPA|x}}; born 1900) and ({{y}}) z", "Paris (born 1900) and z"),
        ("a<br />b <small>c</small> 1 < 2 <unknown>", "a\nb c 1 < 2 <unknown>"),
        ("__NOTOC__ a ---- b\n----\nc", "a ---- b\nc"),
        ("a\n\n\n\n\nb", "a\n\nb"),
    ],
)  # fmt: skip
def test_plain_text_of_markup_then_only_text_stays(markup: str, text: str) -> None:
    assert plain_text(markup, ("file", "image", "category", "datei", "kategorie")) == text


PIECES = st.sampled_from(
    ["{{", "}}", "{{{", "}}}", "[[", "]]", "{|", "\n{|", "\n|}", "|}", "|", "<ref>", "</ref>", "<ref", "<!--", "-->", "<nowiki>", "</nowiki>",
     "<math>", "</math>", "'''", "==", "\n", "\n*", "[http://x", "]", "File:", "word ", "&lt;", "\ue000", "0\ue001", "<br", ">"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=300))
def test_plain_text_of_any_soup_then_it_ends_and_holds_no_marks(pieces: list[str]) -> None:
    text = plain_text("".join(pieces))
    assert "\ue000" not in text
    assert "\ue001" not in text


@given(st.lists(st.sampled_from(["alpha", "beta", "gamma"]), min_size=1, max_size=30), st.integers(0, 40))
def test_plain_text_when_templates_are_nested_and_balanced_then_only_what_stands_outside_stays(
    words: list[str], depth: int
) -> None:
    nested = "{{t|" * depth + "inside" + "}}" * depth
    expected = " ".join(words) if depth else " ".join([words[0] + " inside", *words[1:]])
    assert plain_text(f"{words[0]} {nested} {' '.join(words[1:])}") == expected.strip()


HOSTILE = {
    "open templates": "{{", "open links": "[[", "links and pipes": "[[a|", "closed": "}}", "tables": "\n{|", "refs": "<ref>", "half tags": "<ref ",
    "comments": "<!-- ", "external": "[http://a b ", "headings": "=", "quotes": "'", "nowiki": "<nowiki>", "items": "*", "tag starts": "<b ",
    "brackets": "(", "spaces": " ", "files": "[[File:a|", "mixed": "{{[[{|", "entities": "&", "marks": "\ue000", "params": "{{{",
    "magic": "__A", "deep heads": "\n= a",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_plain_text_of_hostile_nesting_then_the_cost_grows_with_its_length(name: str) -> None:
    """Eight times the text may cost at most about eight times the time; what grows with the square would cost 64 times."""

    def cost(size: int) -> float:
        piece = HOSTILE[name]
        markup = (
            piece * (size // len(piece))
            + "x"
            + {"{{": "}}", "[[": "]]", "\n{|": "\n|}"}.get(piece, "") * (size // len(piece))
        )
        best = float("inf")
        for _ in range(2):
            start = time.process_time()
            plain_text(markup)
            best = min(best, time.process_time() - start)
        return best

    small, large = cost(40_000), cost(320_000)
    assert large < 30 * small + 0.05
    assert large < 2


@settings(max_examples=20)
@given(st.integers(1, 50))
def test_plain_text_of_links_in_links_then_labels_come_out_once(depth: int) -> None:
    markup = "[[a|" * depth + "label" + "]]" * depth
    assert plain_text(markup).count("label") == 1
