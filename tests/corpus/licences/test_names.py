"""Names, URLs and expressions of licences to SPDX."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.licences import normalise
from gptwright.corpus.licences.names import licensing


@pytest.mark.parametrize(
    ("written", "spdx"),
    [
        ("MIT", "MIT"), ("The MIT License", "MIT"), ("mit license", "MIT"), ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache Software License", "Apache-2.0"), ("Apache 2.0 or MIT", "Apache-2.0 OR MIT"), ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("MIT, BSD-3-Clause", "MIT AND BSD-3-Clause"), ("BSD License", "LicenseRef-BSD"), ("New BSD License", "BSD-3-Clause"),
        ("GPL-3.0", "GPL-3.0-only"), ("GPLv3+", "GPL-3.0-or-later"), ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"), ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("GPL-2.0 with classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"), ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("cc-by-sa-nc-3.0", "CC-BY-NC-SA-3.0"), ("Creative Commons Attribution-ShareAlike 4.0 International", "CC-BY-SA-4.0"),
        ("Attribution-NonCommercial 4.0", "CC-BY-NC-4.0"), ("https://creativecommons.org/licenses/by-nc-sa/3.0/de/", "CC-BY-NC-SA-3.0-DE"),
        ("http://creativecommons.org/licenses/by/4.0/deed.en", "CC-BY-4.0"), ("//creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://spdx.org/licenses/MIT.html", "MIT"), ("https://opensource.org/licenses/BSD-3-Clause", "BSD-3-Clause"),
        ("https://www.gnu.org/licenses/gpl-3.0.en.html", "GPL-3.0-only"), ("public domain", "LicenseRef-public-domain"),
        ("LicenseRef-acme", "LicenseRef-acme"), ("MIT AND LicenseRef-acme", "MIT AND LicenseRef-acme"), ("odc-by", "ODC-By-1.0"),
        ("https://opendatacommons.org/licenses/odbl/1-0/", "ODbL-1.0"), ("own", "LicenseRef-own"),
    ],
)  # fmt: skip
def test_normalise_of_what_people_write_then_spdx(written: str, spdx: str) -> None:
    assert normalise(written) == spdx


@pytest.mark.parametrize(
    "written",
    [None, "", "unknown", "other", "((", "CC-BY-9.9", "all rights reserved", "disc", "Creative Commons", "https://example.org/terms",
     "MIT and something",
     "Permission", "x" * 5000, "A" * 300 + " OR " * 50],
)  # fmt: skip
def test_normalise_of_what_says_nothing_then_none(written: str | None) -> None:
    assert normalise(written) is None


WORDS = ["MIT", "BSD", "GPL", "or", "and", "/", ",", "(", ")", "v3", "+", "CC", "by", "4.0"]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)))
def test_normalise_of_anything_then_an_expression_that_is_its_own_normal_form(text: str) -> None:
    found = normalise(text)
    if found is not None:
        licensing().parse(found)
        assert normalise(found) == found
