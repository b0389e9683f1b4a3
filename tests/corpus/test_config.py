"""What a person writes about a source: understood, or refused with the key and a way out."""

from typing import Any

import pytest

from gptwright.core.config import build_config
from gptwright.core.errors import UserError
from gptwright.corpus.config import CorpusConfig


def read(**source: Any) -> Any:
    return build_config(CorpusConfig, {"sources": {"own": {"uri": "data", **source}}}).sources["own"]


@pytest.mark.parametrize(
    "license", ["MIT", "CC-BY-NC-SA-4.0", "MIT OR Apache-2.0", "CC BY 4.0", "LicenseRef-own", "GPL-2.0-or-later"]
)
def test_config_when_a_licence_is_known_then_it_stays_as_it_was_written(license: str) -> None:
    assert read(license=license).license == license


def test_config_when_a_licence_is_said_to_be_unknown_then_none_is_asserted() -> None:
    assert read(license="unknown").license is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"license": "MIIT"}, r"sources\.own\.license.*SPDX id such as CC-BY-4\.0, or LicenseRef-NAME, got \"MIIT\""),
        ({"pii": "masked"}, r"sources\.own\.pii: write one of keep, mask, pseudonymize, drop.*got \"masked\""),
        ({"pii": 3}, r"sources\.own\.pii: write one of keep"),
        ({"pii": {"mail": "mask"}}, r"sources\.own\.pii: no kind of personal data is called 'mail'. Use one of EMAIL"),
        ({"pii": {"email": "hide"}}, r"sources\.own\.pii: 'hide' is nothing.*Use one of keep"),
        ({"consent": {"policy": "override"}}, r"sources\.own\.consent.*needs a reason"),
    ],
)
def test_config_when_a_value_is_wrong_then_key_and_fix_are_named_once(source: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(**source)
    assert "1 fault:" in str(caught.value)
