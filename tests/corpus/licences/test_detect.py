"""Licences told by headers and texts: our own cases, and the licence files that the installed packages ship."""

import importlib.metadata
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.licences import normalise
from gptwright.corpus.licences.around import Around, is_licence_text
from gptwright.corpus.licences.expressions import alternatives
from gptwright.corpus.licences.headers import copyright_lines, header_licence
from gptwright.corpus.licences.manifests import manifest_licence
from gptwright.corpus.licences.texts import licence_of_text

GPL_NOTICE = """/*
 * This program is free software; you can redistribute it and/or modify it under the terms of
 * the GNU General Public License as published by the Free Software Foundation; either
 * version 2 of the License, or (at your option) any later version.
 */"""


@pytest.mark.parametrize(
    ("head", "spdx", "sure"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT", True),
        ("// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause\n", "GPL-2.0-only OR BSD-3-Clause", True),
        ("/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) */\n", "GPL-2.0-only WITH Linux-syscall-note", True),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0 -->\n", "CC-BY-4.0", True),
        ("-- SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: ISC\n", "MIT AND ISC", True),
        ("tags = find('SPDX-License-Identifier: MIT')\n", None, False),
        ("# REUSE-IgnoreStart\n# SPDX-License-Identifier: MIT\n# REUSE-IgnoreEnd\n", None, False),
        (GPL_NOTICE, "GPL-2.0-or-later", False),
        (GPL_NOTICE.replace(", or (at your option) any later version", ""), "GPL-2.0-only", False),
        (GPL_NOTICE.replace("General", "Lesser General").replace("version 2 ", "version 2.1 "), "LGPL-2.1-or-later", False),
        ("# Licensed under the Apache License, Version 2.0 (the\n# \"License\"); you may not", "Apache-2.0", False),
        ("This Source Code Form is subject to the terms of the Mozilla Public\n// License, v. 2.0.", "MPL-2.0", False),
        ("# Released under the MIT license.\n", "MIT", False),
        ("# Use of this source code is governed by a BSD-style license\n", None, False),
        ("This text is available under https://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0", False),
        ("import os\n# nothing said\n", None, False),
        ("\"\"\"Tells licences.\"\"\"\n\nimport re\nX = 'This is free and unencumbered software released into the public domain'\n", None, False),
    ],
)  # fmt: skip
def test_header_licence_of_a_files_beginning_then_what_it_says(head: str, spdx: str | None, sure: bool) -> None:
    found = header_licence(head)
    assert (found.id if found else None) == spdx
    if found:
        assert (found.confidence == 1.0) == sure


@given(st.text(alphabet="SPDX-License-Identifier: MIT(c)Copyright#*/\n 2024", max_size=400))
def test_header_licence_of_any_text_then_never_fails(text: str) -> None:
    header_licence(text)


def test_copyright_lines_then_names_and_not_the_licences_own_words() -> None:
    text = "# Copyright (c) 2020-2024 Ada Writer. All rights reserved.\n# Copyright: Bo\n"
    text += "# The above copyright notice shall\n# copyright holders be liable\n"
    assert copyright_lines(text) == "2020-2024 Ada Writer; Bo"
    assert (
        copyright_lines(
            "  (c) You must retain, in the Source form\n  (c) 2021 Cy\n   Copyright [yyyy] [name of owner]\n"
        )
        == "2021 Cy"
    )


@pytest.mark.parametrize(
    ("name", "text", "spdx"),
    [
        ("pyproject.toml", '[project]\nlicense = "MIT OR Apache-2.0"\n', "MIT OR Apache-2.0"),
        ("pyproject.toml", '[project]\nlicense = {text = "BSD 3-Clause"}\n', "BSD-3-Clause"),
        ("pyproject.toml", '[project]\nclassifiers = ["License :: OSI Approved :: MIT License"]\n', "MIT"),
        ("pyproject.toml", '[tool.poetry]\nlicense = "GPL-3.0-or-later"\n', "GPL-3.0-or-later"),
        ("setup.cfg", "[metadata]\nlicense = Apache License 2.0\n", "Apache-2.0"),
        ("setup.py", "setup(name='x', license='MIT')", "MIT"),
        ("package.json", '{"license": "(MIT OR CC0-1.0)"}', "MIT OR CC0-1.0"),
        ("package.json", '{"licenses": [{"type": "MIT"}, {"type": "Apache-2.0"}]}', "MIT OR Apache-2.0"),
        ("Cargo.toml", '[package]\nlicense = "MIT/Apache-2.0"\n', "MIT OR Apache-2.0"),
        ("composer.json", '{"license": ["LGPL-2.1-only", "GPL-3.0-or-later"]}', "LGPL-2.1-only OR GPL-3.0-or-later"),
        ("DESCRIPTION", "Package: x\nLicense: GPL (>= 2)\n", "GPL-2.0-or-later"),
        ("pom.xml", "<licenses><license><name>Apache License, Version 2.0</name></license></licenses>", "Apache-2.0"),
        ("package.json", '{"license": "SEE LICENSE IN x"}', None),
        ("package.json", "{broken", None),
        ("package.json", "[" * 100000, None),
        ("setup.cfg", "no section", None),
        ("other.toml", 'license = "MIT"', None),
    ],
)
def test_manifest_licence_then_what_it_states(name: str, text: str, spdx: str | None) -> None:
    assert manifest_licence(name, text) == spdx


def test_around_when_manifest_and_text_differ_then_the_text_counts_and_less_surely() -> None:
    mit = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software."
    mit += " The above copyright notice and this permission notice"
    agreeing = Around({"LICENSE": mit, "package.json": '{"license": "MIT"}'}).whole
    differing = Around({"LICENSE": mit, "package.json": '{"license": "ISC"}'}).whole
    assert (agreeing.id, agreeing.confidence) == ("MIT", 1.0)
    assert (differing.id, differing.confidence) == ("MIT", 0.5)
    assert "says ISC" in differing.evidence
    both = Around({"LICENSE-MIT": mit, "LICENSE-APACHE": "Apache License\nVersion 2.0, January 2004"}).whole
    assert both.id == "Apache-2.0 OR MIT"


def test_around_with_debian_and_reuse_annotations_then_they_count_for_their_files() -> None:
    dep5 = "Format: x\n\nFiles: img/* doc/a.md\nCopyright: 2020 Ada\nLicense: CC-BY-4.0\n\nFiles: *.csv\nCopyright: Bo\nLicense: CC0-1.0\n"
    around = Around({".reuse/dep5": dep5})
    assert [around.of(place).id for place in ("img/deep/a.txt", "doc/a.md", "doc/b.md", "x/y.csv")] == [
        "CC-BY-4.0", "CC-BY-4.0", None, "CC0-1.0",
    ]  # fmt: skip
    toml = '[[annotations]]\npath = ["*.md"]\nprecedence = "override"\nSPDX-License-Identifier = "CC-BY-SA-4.0"\n'
    reuse = Around({"docs/REUSE.toml": toml})
    own = header_licence("<!-- SPDX-License-Identifier: MIT -->")
    assert reuse.of("docs/a.md", own).id == "CC-BY-SA-4.0"
    assert reuse.of("docs/deep/a.md", own).id == "MIT"
    assert reuse.of("a.md", own).id == "MIT"


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "LICENSE.txt", "COPYING.LESSER", "license-mit.md", "a/UNLICENSE", "LICENSES/MIT.txt", "x.csv.license"],
)
def test_is_licence_text_of_their_names_then_true(name: str) -> None:
    assert is_licence_text(name)


@pytest.mark.parametrize("name", ["license.py", "licensing.md", "README", "src/license_check.go", "notes.txt"])
def test_is_licence_text_of_other_names_then_false(name: str) -> None:
    assert not is_licence_text(name)


def shipped() -> list[tuple[str, str, str]]:
    """(package, the licence that its metadata state, the text of its main licence file) of all that is installed here."""
    rows = []
    for distribution in importlib.metadata.distributions():
        stated = normalise(distribution.metadata.get("License-Expression"))
        files = [
            f
            for f in distribution.files or []
            if re.match(r"(un)?(licen[sc]e|copying)", f.name, re.I) and ".dist-info" in str(f)
        ]
        if stated and files:
            main = min(files, key=lambda f: (len(f.parts), len(str(f)), str(f)))
            try:
                rows.append((distribution.metadata["Name"], stated, main.read_text(encoding="utf-8")))
            except (OSError, UnicodeDecodeError):
                continue
    return rows


def test_licence_of_text_on_the_files_that_packages_ship_then_nearly_always_what_they_state() -> None:
    rows = shipped()
    assert len(rows) >= 40
    wrong = []
    for name, stated, text in rows:
        found = licence_of_text(text, "repository", "LICENSE")
        want = {re.sub(r"-(only|or-later)$", "", one) for choice in alternatives(stated) for one in choice}
        got = {
            re.sub(r"-(only|or-later)$", "", one)
            for choice in alternatives(found.id if found else None)
            for one in choice
        }
        if not got or not got <= want:
            wrong.append((name, stated, found.id if found else None))
    assert len(wrong) <= 0.05 * len(rows), wrong
