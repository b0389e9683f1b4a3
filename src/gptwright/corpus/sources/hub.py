"""A data set of the Hugging Face Hub: its parquet, JSON or CSV files at a revision, checked against the sizes and hashes that the hub states.

``hf:OWNER/NAME[@REVISION][#CONFIG[/SPLIT]]``. Asked again, only files whose hash changed are brought. Code of a data set is never run.
"""

import fnmatch
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gptwright.core.errors import Interrupted, UserError, require
from gptwright.core.files import TEMPORARY
from gptwright.core.hashing import b2_json
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.progress import progress
from gptwright.corpus.licences import Licence, normalise
from gptwright.corpus.sources.base import Request
from gptwright.corpus.sources.raw import RawStore

_DATA = re.compile(r"\.(parquet|jsonl|ndjson|json|csv|tsv|txt)(\.(gz|zst|bz2|xz))?$", re.IGNORECASE)
_ABOUT = frozenset({"dataset_infos.json", "dataset_info.json", "state.json", "config.json"})  # of the data set, no data
_CONVERTED = "refs/convert/parquet"  # where the hub keeps what it made of data sets in other forms
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Target:
    """What a uri names."""

    dataset: str
    revision: str | None
    config: str | None
    split: str | None


@dataclass(frozen=True)
class _File:
    """A data file of the hub: its path, size, and the hash that its content must have."""

    path: str
    size_bytes: int | None
    sha256: str | None
    git_id: str | None

    @property
    def identity(self) -> str:
        return f"{self.sha256 or self.git_id}"


def parse(rest: str, where: str) -> Target:
    """Read ``OWNER/NAME[@REVISION][#CONFIG[/SPLIT]]``.

    Raises:
        UserError: it names no data set.
    """
    place, _, part = rest.partition("#")
    dataset, _, revision = place.partition("@")
    dataset = dataset.removeprefix("//").removeprefix("datasets/").strip("/")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", dataset) or ".." in dataset:
        raise UserError(f"{place!r} names no data set", where=where, fix="Write hf:OWNER/NAME")
    config, _, split = part.partition("/")
    return Target(dataset, revision or None, config or None, split or None)


def gather(request: Request) -> None:
    """Bring the data set's files into the raw store.

    Raises:
        UserError: the hub cannot be reached, the data set is not there or not open, or it has no file that can be read.
        Interrupted: stopped; the next call goes on.
    """
    target = parse(request.rest, request.where)
    hub = require("huggingface_hub", "hf")
    endpoint = os.environ.get("HF_ENDPOINT") or None
    api = hub.HfApi(endpoint=endpoint, library_name="gptwright")
    store = RawStore(request.raw)
    with _explained(target, request.where):
        info = api.dataset_info(target.dataset, revision=target.revision, files_metadata=True)
        card = _card(info)
        files = _chosen(_files(info), card, target, request.where)
        if not files and target.revision is None:
            with suppress(hub.errors.RevisionNotFoundError):
                info = api.dataset_info(target.dataset, revision=_CONVERTED, files_metadata=True)
                files = _chosen(_files(info), {}, target, request.where)
    if not files:
        raise UserError(
            f"{target.dataset} has no parquet, JSON, CSV or text files"
            + (f" of {target.config}" if target.config else ""),
            where=request.where,
            fix="Correct the part after #, or download and convert it, and name the folder",
        )
    store.begin(b2_json([request.rest, info.sha]))
    passing = request.raw / f"{TEMPORARY}hub"
    shutil.rmtree(passing, ignore_errors=True)
    try:
        with stop_on_signals() as stop, progress("hub", total=len(files), unit="files") as bar:
            done = store.done()
            for file in files:
                bar.advance()
                if file.path in done:
                    continue
                if stop:
                    raise Interrupted(f"stopped by {stop.reason}; what was brought stays, run again to continue")
                known = store.get(file.path)
                if known is not None and known.file is not None and known.extra.get("hash") == file.identity:
                    store.keep(file.path)
                    continue
                with _explained(target, request.where):
                    path = hub.hf_hub_download(
                        target.dataset,
                        file.path,
                        repo_type="dataset",
                        revision=info.sha,
                        local_dir=passing,
                        endpoint=endpoint,
                    )
                _check(Path(path), file, request.where)
                suffix = "".join(PurePosixPath(file.path).suffixes[-2:]).lower()
                keep = suffix if _DATA.fullmatch(suffix) else PurePosixPath(file.path).suffix.lower()
                store.put(file.path, Path(path), suffix=keep, extra={"hash": file.identity})
                Path(path).unlink()
    finally:
        shutil.rmtree(passing, ignore_errors=True)
    about = {
        "dataset": target.dataset,
        "commit": info.sha,
        "revision": target.revision,
        "config": target.config,
        "split": target.split,
    }
    store.finish(licence=_licence(card, target), about=about)


def _card(info: Any) -> Mapping[str, Any]:
    card = info.card_data
    if card is None:
        return {}
    made = card.to_dict() if hasattr(card, "to_dict") else card
    return made if isinstance(made, Mapping) else {}


def _files(info: Any) -> list[_File]:
    found = []
    for one in info.siblings or []:
        path = PurePosixPath(one.rfilename)
        if not _DATA.search(path.name) or path.name in _ABOUT or path.name.lower().startswith(("license", "readme")):
            continue
        if path.is_absolute() or ".." in path.parts or any(part.startswith(".") for part in path.parts):
            continue
        lfs = one.lfs
        sha256 = lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)
        found.append(_File(one.rfilename, one.size, sha256, one.blob_id))
    return found


def _chosen(files: list[_File], card: Mapping[str, Any], target: Target, where: str) -> list[_File]:
    """The files of the wanted configuration and split: as the card assigns them, else as folders and names tell."""
    configs = [one for one in card.get("configs") or [] if isinstance(one, Mapping) and "config_name" in one]
    names = [str(one["config_name"]) for one in configs]
    config, split = target.config, target.split
    if config and config not in names and split is None and (not names or config in ("train", "test", "validation")):
        folder = any(config in PurePosixPath(file.path).parts[:-1] for file in files)
        config, split = (config, None) if folder else (None, config)
    if configs:
        if config is None:
            usual = [one for one in configs if one.get("default")] or configs
            if len(usual) > 1:
                usual = [one for one in configs if one["config_name"] == "default"]
            if len(usual) != 1:
                raise UserError(
                    f"{target.dataset} has {len(names)} configurations",
                    where=where,
                    fix=f"Name one after #: {', '.join(names[:12])}",
                )
            chosen = usual[0]
        elif config in names:
            chosen = configs[names.index(config)]
        else:
            raise UserError(
                f"{target.dataset} has no configuration {config}",
                where=where,
                fix=f"Name one of {', '.join(names[:12])}",
            )
        patterns = _patterns(chosen, split)
        if patterns is not None:
            return [file for file in files if any(_matches(file.path, one) for one in patterns)]
    if config is not None:
        files = [file for file in files if config in PurePosixPath(file.path).parts[:-1]]
    if split is not None:
        named = re.compile(rf"(^|[/_.-]){re.escape(split)}([/_.-]|$)")
        files = [file for file in files if named.search(file.path)]
    return _one_form(files)


def _one_form(files: list[_File]) -> list[_File]:
    """A data set that holds its rows in several forms is read in one."""
    parquet = [file for file in files if file.path.lower().endswith(".parquet")]
    lines = [file for file in files if re.search(r"\.(jsonl|ndjson)(\.\w+)?$", file.path, re.IGNORECASE)]
    return parquet or lines or files


def _patterns(config: Mapping[str, Any], split: str | None) -> list[str] | None:
    """The path patterns of a configuration's data files; None when the card does not say."""
    said = config.get("data_files")
    if said is None:
        folder = config.get("data_dir")
        return [f"{str(folder).strip('/')}/**"] if folder and split is None else None
    rows = [said] if isinstance(said, str | Mapping) else list(said)
    found: list[str] = []
    for row in rows:
        if isinstance(row, Mapping):
            if split is None or row.get("split") == split:
                paths = row.get("path", [])
                found += [paths] if isinstance(paths, str) else [str(path) for path in paths]
        elif split is None or split == "train":
            found.append(str(row))
    return found


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern.removeprefix("./").replace("**/", "*").replace("**", "*"))


def _check(path: Path, file: _File, where: str) -> None:
    """Compare what came with what the hub stated.

    Raises:
        UserError: another size or hash.
    """
    size = path.stat().st_size
    said = (
        f"{file.path}: {size:,} bytes came where the hub states {file.size_bytes:,}"
        if file.size_bytes is not None
        else ""
    )
    if said and size != file.size_bytes:
        path.unlink()
        raise UserError(said, where=where, fix="Run the same command again")
    wanted = file.sha256 or file.git_id
    if not wanted:
        return
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as data:
        while block := data.read(_CHUNK):
            digest.update(block)
    if digest.hexdigest() != wanted:
        path.unlink()
        raise UserError(
            f"{file.path}: its hash is not the one that the hub states", where=where, fix="Run the same command again"
        )


def _licence(card: Mapping[str, Any], target: Target) -> Licence:
    said = card.get("license")
    written = [str(one) for one in (said if isinstance(said, list) else [said]) if one]
    named = f"{card.get('license_name') or ''} {card.get('license_link') or ''}".strip()
    found = [normalise(one) for one in written]
    credit = f"{target.dataset} on the Hugging Face Hub"
    if not written or any(one is None for one in found):
        told = normalise(card.get("license_name")) or normalise(card.get("license_link")) if named else None
        if told:
            return Licence(told, "repository", 0.7, f"the data set's card: {named}", credit)
        evidence = f"the data set's card says {', '.join(written) or 'nothing'} {named}".strip()
        return Licence(None, "none", 0.0, evidence, credit)
    identity = found[0] if len(found) == 1 else normalise(" AND ".join(f"({one})" for one in found))
    return Licence(identity, "repository", 0.9, f"the data set's card: license {', '.join(written)}", credit)


@contextmanager
def _explained(target: Target, where: str) -> Iterator[None]:
    """The hub's errors as the person's."""
    from huggingface_hub import errors

    away = (
        f"Connect to the network, or download {target.dataset} on another machine (hf download --repo-type dataset {target.dataset}"
        " --local-dir FOLDER) and name the folder"
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{target.dataset} is given only to those who accepted its terms",
            where=where,
            fix="Accept them on its page, then run: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{target.dataset} has no revision {target.revision!r}",
            where=where,
            fix="Name a branch, tag or commit after @",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no data set {target.dataset}, or not for you",
            where=where,
            fix="Correct the name, or run: hf auth login",
        ) from error
    except errors.HfHubHTTPError as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"the hub refuses {target.dataset}: {said}", where=where, fix="Try again later") from error
    except Exception as error:
        # Which client the hub's library speaks through changes with its version; the names of its errors do not.
        names = {one.__name__ for one in type(error).__mro__}
        if not names & {
            "OfflineModeIsEnabled",
            "LocalEntryNotFoundError",
            "TransportError",
            "ConnectionError",
            "RequestException",
        }:
            raise
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        why = "offline mode is on (HF_HUB_OFFLINE)" if offline else " ".join(str(error).split())[:120]
        raise UserError(f"the hub cannot be reached: {why}", where=where, fix=away) from error
