"""The raw store: durable at every call, only what changed is new, what is gone goes, what is erased leaves no byte."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.licences import Licence
from gptwright.corpus.sources.base import Facts, Request
from gptwright.corpus.sources.raw import RawStore

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> RawStore:
    store = RawStore(tmp_path / "raw")
    store.begin("plan")
    store.put("a", b"alpha", facts=Facts(fetched_at=EARLY, title="A"), suffix=".txt", extra={"etag": "1"})
    store.put("b", b"beta")
    store.outcome("c", "skipped", "robots.txt forbids it")
    store.finish(licence=Licence("MIT", "repository", 0.9, "LICENSE"), about={"commit": "12ab"})
    return store


def request(store: RawStore) -> Request:
    return Request("s", SourceConfig(uri="crawl:x"), "x", "crawl", store.folder, store.folder)


def test_listing_when_finished_then_every_place_is_a_file_or_set_aside_with_its_reason(store: RawStore) -> None:
    listing = store.listing(request(store))
    assert [(f.locator, f.path.read_bytes(), f.facts.title) for f in listing.files] == [
        ("a", b"alpha", "A"),
        ("b", b"beta", None),
    ]
    assert [(r.locator, r.outcome, r.reason) for r in listing.set_aside] == [("c", "skipped", "robots.txt forbids it")]
    assert listing.licence.id == "MIT"
    assert store.about() == {"commit": "12ab"}


def test_gathering_when_nothing_changed_then_the_fingerprint_and_the_first_time_stay(store: RawStore) -> None:
    before = store.fingerprint()
    store.begin("plan")
    assert not store.finished
    store.put("a", b"alpha", facts=Facts(fetched_at=LATE, title="A"), suffix=".txt")
    store.keep("b")
    store.outcome("c", "skipped", "robots.txt forbids it")
    assert store.done() == {"a", "b", "c"}
    store.finish(licence=Licence("MIT", "repository", 0.9, "LICENSE"))
    assert store.fingerprint() == before
    place = store.get("a")
    assert place is not None
    assert place.facts.fetched_at == EARLY


def test_gathering_when_stopped_then_it_goes_on_with_the_same_plan_and_anew_with_another(store: RawStore) -> None:
    store.begin("plan")
    store.keep("a")
    again = RawStore(store.folder)
    again.begin("plan")
    assert again.done() == {"a"}
    again.begin("another plan")
    assert again.done() == set()


def test_gathering_when_a_place_is_not_seen_again_then_it_and_its_bytes_go(store: RawStore) -> None:
    old = store.get("b")
    assert old is not None
    assert old.file is not None
    store.begin()
    store.put("a", b"alpha two", suffix=".txt")
    store.finish()
    assert store.get("b") is None
    assert not old.file.exists()
    assert [p.read_bytes() for p in store.folder.glob("??/*")] == [b"alpha two"]


def test_erase_when_asked_then_no_byte_of_it_is_left_and_the_fingerprint_changes(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "raw")
    store.begin()
    store.put(
        "page", b"a marker-7f3a text", facts=Facts(title="marker-7f3a in the title"), extra={"links": ["marker-7f3a"]}
    )
    store.put("other", b"something else")
    store.finish()
    before = store.fingerprint()
    store.erase("page")
    assert store.fingerprint() != before
    for path in store.folder.rglob("*"):
        if path.is_file():
            assert b"marker-7f3a" not in path.read_bytes(), path
    assert [row.reason for row in store.listing(request(store)).set_aside] == ["erased on demand"]


def test_erase_when_two_places_share_their_bytes_then_the_other_keeps_them(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "raw")
    store.begin()
    store.put("one", b"same")
    store.put("two", b"same")
    store.finish()
    store.erase("one")
    kept = store.get("two")
    assert kept is not None
    assert kept.file is not None
    assert kept.file.read_bytes() == b"same"


def test_listing_when_nothing_was_gathered_then_the_error_names_the_verb(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "raw")
    with pytest.raises(UserError, match="gptwright data build"):
        store.listing(request(store))


def test_facts_when_joined_then_the_more_trusted_licence_and_all_opt_outs_stay() -> None:
    page = Facts(
        url="u", license_id="CC-BY-4.0", license_source="page-metadata", license_conf=0.6, optout=1, consent=({"a": 1},)
    )
    header = Facts(
        license_id="MIT",
        license_source="spdx-header",
        license_conf=1.0,
        attribution="Ann",
        optout=4,
        consent=({"b": 2},),
    )
    for joined in (page | header, header | page):
        assert (joined.license_id, joined.license_source, joined.attribution, joined.optout) == (
            "MIT",
            "spdx-header",
            "Ann",
            5,
        )
        assert joined.url == "u"
        assert len(joined.consent) == 2
    assert Facts.from_json((page | header).to_json()) == page | header
