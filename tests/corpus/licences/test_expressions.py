"""OR gives a choice, AND adds up, WITH goes along, "or later" means later ones too."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.licences.expressions import accepted_by, alternatives, choose


@pytest.mark.parametrize(
    ("expression", "allowed", "taken"),
    [
        ("MIT OR GPL-3.0-only", {"MIT"}, "MIT"),
        ("GPL-3.0-only OR MIT", {"MIT", "GPL-3.0-only"}, "GPL-3.0-only"),
        ("MIT AND GPL-3.0-only", {"MIT"}, None),
        ("MIT AND BSD-3-Clause", {"MIT", "BSD-3-Clause"}, "MIT AND BSD-3-Clause"),
        (
            "(MIT OR Apache-2.0) AND (BSD-3-Clause OR GPL-2.0-only)",
            {"Apache-2.0", "BSD-3-Clause"},
            "Apache-2.0 AND BSD-3-Clause",
        ),
        ("MIT AND Apache-2.0 OR ISC", {"MIT", "Apache-2.0", "ISC"}, "ISC"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", {"GPL-2.0-only"}, "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-2.0-only", {"GPL-2.0-only WITH Classpath-exception-2.0"}, None),
        ("GPL-2.0-or-later", {"GPL-3.0-only"}, "GPL-2.0-or-later"),
        ("GPL-3.0-or-later", {"GPL-2.0-only"}, None),
        ("LGPL-2.1-or-later", {"GPL-3.0-only"}, None),
        ("LicenseRef-own", {"MIT"}, None),
        ("nonsense here", {"MIT"}, None),
        (None, {"MIT"}, None),
    ],
)
def test_choose_under_a_list_then_the_choice_that_fits(
    expression: str | None, allowed: set[str], taken: str | None
) -> None:
    assert choose(expression, accepted_by(frozenset(allowed))) == taken


IDS = ["MIT", "ISC", "BSD-3-Clause", "Zlib"]
TREES = st.recursive(
    st.sampled_from(IDS), lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner), max_leaves=6
)


def written(tree: object) -> str:
    return f"({written(tree[1])} {tree[0]} {written(tree[2])})" if isinstance(tree, tuple) else str(tree)


def holds(tree: object, allowed: frozenset[str]) -> bool:
    if not isinstance(tree, tuple):
        return tree in allowed
    both = (holds(tree[1], allowed), holds(tree[2], allowed))
    return all(both) if tree[0] == "AND" else any(both)


@given(TREES)
def test_choose_of_any_expression_then_as_logic_says_and_what_is_taken_suffices(tree: object) -> None:
    for count in range(len(IDS) + 1):
        for some in itertools.combinations(IDS, count):
            taken = choose(written(tree), accepted_by(frozenset(some)))
            assert (taken is not None) == holds(tree, frozenset(some))
            if taken is not None:
                assert holds(tree, frozenset(taken.split(" AND ")))


def test_alternatives_of_an_expression_made_to_explode_then_not_understood() -> None:
    assert alternatives(" AND ".join(f"(LicenseRef-a{i} OR LicenseRef-b{i})" for i in range(20))) == []
