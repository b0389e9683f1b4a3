"""The files of a git repository at a commit, each with the licence that it, its folder or the repository states.

``git:FOLDER_OR_URL[@REVISION][#PATH GLOB]``. Nothing is checked out and nothing of the repository is run. Asked again, only files whose
content changed are read; of a remote repository only these are fetched.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.hashing import b2_json
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.progress import progress
from gptwright.corpus.licences import Licence
from gptwright.corpus.licences.around import Around, is_licence_text, says_something
from gptwright.corpus.licences.headers import HEAD_CHARS, own_licence
from gptwright.corpus.sources.base import Facts, Request
from gptwright.corpus.sources.codefiles import LARGEST, aside_by_content, aside_by_path
from gptwright.corpus.sources.gitrepo import Entry, Fetcher, Reader, Repository, fetched, local_folder, without_userinfo
from gptwright.corpus.sources.package import alternatives
from gptwright.corpus.sources.raw import RawStore

RULES = 1  # of what is set aside and how licences are told; another number reads all files again
_SCP = re.compile(r"(?P<user>[\w.-]+@)?(?P<host>[A-Za-z0-9.-]{2,}):(?P<path>[^/\\:].*)")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,12}){1,2}$")
_LARGEST_EVIDENCE = 1 << 20
_MOST_EVIDENCE = 20_000


@dataclass(frozen=True)
class Target:
    """What a git uri names: a URL or a folder, a revision, and patterns of paths."""

    url: str | None
    folder: Path | None
    revision: str | None
    pattern: str | None

    @property
    def shown(self) -> str:
        """The repository for people: no user, no password."""
        return without_userinfo(self.url) if self.url else str(self.folder)


def parse(rest: str, root: Path, where: str) -> Target:
    """Read ``FOLDER_OR_URL[@REVISION][#GLOB]``.

    Raises:
        UserError: another kind of URL, a password in it, or no repository named.
    """
    place, _, pattern = rest.partition("#")
    if not place:
        raise UserError("no repository is named", where=where, fix="Write git:FOLDER, or git:https://HOST/REPOSITORY")
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", place)
    if scheme is None and not (root / Path(place).expanduser()).exists() and (scp := _SCP.fullmatch(place)):
        place = f"ssh://{scp['user'] or ''}{scp['host']}/{scp['path']}"
        scheme = re.match(r"([a-z]+)://", place)
    if scheme is None:
        return _local(place, pattern, root)
    if scheme[1] not in ("https", "ssh", "file"):
        raise UserError(
            f"{scheme[1]}: is no way to a repository that is used", where=where, fix="Use an https:, ssh: or file: URL"
        )
    if urlsplit(place).password:
        raise UserError(
            "the URL holds a password, which would be kept in files", where=where, fix="Use git's credential helper"
        )
    start = place.index("/", scheme.end()) if "/" in place[scheme.end() :] else len(place)
    path, mark, revision = place[start:].partition("@")
    return Target(place[:start] + path, None, _revision(revision, where) if mark else None, pattern or None)


def _local(place: str, pattern: str, root: Path) -> Target:
    folder = root / Path(place).expanduser()
    at = len(place)
    while not folder.exists() and (at := place.rfind("@", 0, at)) > 0:
        folder = root / Path(place[:at]).expanduser()
    if at == len(place) or not folder.exists():
        return Target(None, root / Path(place).expanduser(), None, pattern or None)
    return Target(None, folder, _revision(place[at + 1 :], str(folder)), pattern or None)


def _revision(text: str, where: str) -> str:
    if not re.fullmatch(r"[\w][\w./+~^-]*", text):
        raise UserError(f"{text!r} names no revision", where=where, fix="Name a branch, a tag or a commit after @")
    return text


def gather(request: Request) -> None:
    """Bring the files of the commit into the raw store.

    Raises:
        UserError: the repository or revision cannot be had.
        Interrupted: stopped; the next call goes on.
    """
    target = parse(request.rest, request.root, request.where)
    store = RawStore(request.raw)
    with _opened(target, store, request) as (repository, commit, fetcher):
        store.begin(b2_json([request.rest, commit, RULES]))
        wanted, named = _patterns(target.pattern)
        entries = [entry for entry in repository.entries(commit) if wanted is None or wanted.fullmatch(entry.path)]
        if not entries:
            raise UserError(
                f"no file of {target.shown} at {commit[:12]} matches {target.pattern!r}"
                if wanted
                else "the commit is empty",
                where=request.where,
                fix="Correct the pattern after #",
            )
        evidence = [
            entry for entry in repository.entries(commit) if says_something(entry.path) and entry.mode[:3] == "100"
        ]
        evidence = evidence[:_MOST_EVIDENCE]
        with stop_on_signals() as stop, progress("git", total=len(entries), unit="files") as bar:
            fresh = _fresh(entries, store, named)
            if fetcher is not None:
                have = repository.sizes(list({entry.oid for entry in [*fresh, *evidence]}))
                if target.pattern or next(store.places(), None) is not None:
                    fetcher.bring(sorted({entry.oid for entry in [*fresh, *evidence]} - set(have)))
            sizes = repository.sizes(list({entry.oid for entry in [*fresh, *evidence]}))
            with repository.reader() as reader, store.batch():
                around = Around(_texts(evidence, reader, sizes))
                done, todo = store.done(), {entry.path for entry in fresh}
                for entry in entries:
                    bar.advance()
                    if entry.path in done:
                        continue
                    if stop:
                        raise Interrupted(f"stopped by {stop.reason}; what was gathered stays, run again to continue")
                    if entry.path in todo:
                        _take(store, entry, reader, sizes, around, named)
                    else:
                        _again(store, entry, around, named)
        whole = around.whole
        date = repository.run("log", "-1", "--format=%cI", commit).decode().strip()
    about = {"repository": target.shown, "revision": target.revision, "commit": commit, "committed_at": date}
    store.finish(
        licence=Licence(whole.id, whole.source, whole.confidence, whole.evidence, whole.attribution), about=about
    )


@contextmanager
def _opened(target: Target, store: RawStore, request: Request) -> Iterator[tuple[Repository, str, Fetcher | None]]:
    if target.folder is not None:
        repository = Repository(local_folder(target.folder, request.where), request.where)
        with nullcontext():
            yield repository, repository.commit(target.revision or "HEAD"), None
        return
    assert target.url is not None
    first = target.pattern is None and next(store.places(), None) is None
    with fetched(target.url, target.revision, request.raw, request.where, LARGEST if first else None) as opened:
        yield opened


def _fresh(entries: list[Entry], store: RawStore, named: frozenset[str]) -> list[Entry]:
    """Files whose bytes must be read: those that may be texts and whose content is not the one that is known."""
    known = {place.locator: place.extra for place in store.places()}
    return [
        entry
        for entry in entries
        if entry.mode[:3] == "100"
        and aside_by_path(entry.path, named) is None
        and not is_licence_text(entry.path)
        and (known.get(entry.path, {}).get("blob"), known.get(entry.path, {}).get("rules")) != (entry.oid, RULES)
    ]


def _texts(evidence: list[Entry], reader: Reader, sizes: dict[str, int]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for entry in evidence:
        if (
            sizes.get(entry.oid, _LARGEST_EVIDENCE + 1) <= _LARGEST_EVIDENCE
            and (data := reader.read(entry.oid)) is not None
        ):
            texts[entry.path] = data.decode("utf-8", "replace")
    return texts


def _take(
    store: RawStore, entry: Entry, reader: Reader, sizes: dict[str, int], around: Around, named: frozenset[str]
) -> None:
    extra: dict[str, Any] = {"blob": entry.oid, "rules": RULES}
    size = sizes.get(entry.oid)
    if size is None or size > LARGEST:
        told = f"{size:,} bytes, more" if size else "more"
        store.outcome(entry.path, "skipped", f"{told} than the {LARGEST >> 20} MB that one file may have", extra=extra)
        return
    data = reader.read(entry.oid)
    if data is None:
        store.outcome(entry.path, "unreadable", "its content is missing in the repository")
        return
    if (aside := aside_by_content(entry.path, data)) is not None:
        store.outcome(entry.path, *aside, extra=extra)
        return
    own = own_licence(data[: 4 * HEAD_CHARS].decode("utf-8", "replace"))
    extra["own"] = list(vars(own).values())
    suffix = _SUFFIX.search(PurePosixPath(entry.path).name)
    store.put(
        entry.path,
        data,
        facts=_facts(around.of(entry.path, own)),
        suffix=suffix[0].lower() if suffix else "",
        extra=extra,
    )


def _again(store: RawStore, entry: Entry, around: Around, named: frozenset[str]) -> None:
    """A place whose content needs no reading: known as it is, or told by its mode and path. A licence may have changed around it."""
    if entry.mode == "160000":
        store.outcome(entry.path, "skipped", "submodule: another repository. Add it as a source of its own")
        return
    if entry.mode == "120000":
        store.outcome(entry.path, "skipped", "symbolic link")
        return
    if (reason := aside_by_path(entry.path, named)) is not None or is_licence_text(entry.path):
        store.outcome(entry.path, "skipped", reason or "licence text: read for the licence, no text to learn from")
        return
    known = store.get(entry.path)
    if known is None or known.file is None:
        store.keep(entry.path, note=known.reason if known else None)
        return
    facts = _facts(around.of(entry.path, Licence(*known.extra["own"])))
    store.keep(entry.path, facts=facts if facts != known.facts else None)


def _facts(licence: Licence) -> Facts:
    source = licence.source if licence.id else "none"
    confidence = licence.confidence if licence.id else 0.0
    return Facts(license_id=licence.id, license_source=source, license_conf=confidence, attribution=licence.attribution)


def _patterns(pattern: str | None) -> tuple[re.Pattern[str] | None, frozenset[str]]:
    """A path glob as an expression ("**" crosses folders, {a,b} are alternatives, a folder's name means all below it), and the folders
    that it names in full."""
    if pattern is None:
        return None, frozenset()
    named = frozenset(part for one in alternatives(pattern) for part in one.split("/") if not set(part) & set("*?["))
    return re.compile("|".join(_translated(one.strip("/")) for one in alternatives(pattern)), re.DOTALL), named


def _translated(pattern: str) -> str:
    made = ""
    for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        made += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
    return f"(?:{made}(?:/.*)?)"
