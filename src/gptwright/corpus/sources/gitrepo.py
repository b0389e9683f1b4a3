"""A git repository read without a checkout: its objects by ``git cat-file``, and those of a remote one fetched into a passing bare copy.

No hook, filter, pager, submodule or helper that a repository names is ever run: its configuration is another's text.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gptwright.core.errors import UserError
from gptwright.core.files import TEMPORARY

_CHUNK = 1 << 20
_SAFE = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never", "-c", "core.askPass=",
    "-c", "http.lowSpeedLimit=500", "-c", "http.lowSpeedTime=60", "-c", "gc.auto=0", "-c", "fetch.fsckObjects=true",
    # modes and dates that old tools wrote are odd and harmless
    "-c", "fetch.fsck.zeroPaddedFilemode=ignore", "-c", "fetch.fsck.badTimezone=ignore",
    "-c", "fetch.fsck.missingSpaceBeforeDate=ignore",
)  # fmt: skip
_USERINFO = re.compile(r"(\w+://)[^/@\s]*@")


@dataclass(frozen=True)
class Entry:
    """A path of a commit: git's mode, the object's id, and the path's bytes as text."""

    mode: str
    oid: str
    path: str


def clean_environment(protocols: str) -> dict[str, str]:
    """This process's environment without what steers git, and with the transports that may be used ("none" for none)."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=30",
        "LC_ALL": "C",
    }


def without_userinfo(text: str) -> str:
    """A text in which no URL names a user or password."""
    return _USERINFO.sub(r"\1", text)


class Repository:
    """One repository, by its git folder."""

    def __init__(self, folder: Path, where: str, protocols: str = "none") -> None:
        self.folder, self.where = folder, where
        self._environment = clean_environment(protocols) | {"GIT_DIR": str(folder)}
        if protocols == "none":  # nothing of the person's settings is needed to read objects
            self._environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run git to its end. Raises ``subprocess.CalledProcessError``, or UserError when there is no git."""
        return _git([*_SAFE, *arguments], self._environment, data).stdout

    def commit(self, revision: str) -> str:
        """The commit that a revision names.

        Raises:
            UserError: there is none.
        """
        try:
            return (
                self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
                .decode()
                .strip()
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise UserError(
                f"the repository has no commit {revision!r}" + (f" ({without_userinfo(said)})" if said else ""),
                where=self.where,
                fix="Name a branch, a tag or a commit after @",
            ) from error

    def entries(self, commit: str) -> Iterator[Entry]:
        """All paths of a commit but folders, in git's order."""
        with self._open("ls-tree", "-r", "-z", "--full-tree", commit) as process:
            assert process.stdout is not None
            for row in _split(process.stdout, b"\0"):
                meta, _, path = row.partition(b"\t")
                mode, _, oid = meta.decode().split(" ")
                yield Entry(mode, oid, path.decode("utf-8", "backslashreplace"))

    def sizes(self, oids: Sequence[str]) -> dict[str, int]:
        """Bytes of objects; those that are not there are left out."""
        found: dict[str, int] = {}
        asked = "".join(f"{oid}\n" for oid in oids).encode()
        for line in self.run("cat-file", "--batch-check=%(objectname) %(objectsize)", data=asked).decode().splitlines():
            oid, _, size = line.partition(" ")
            if size.isdecimal():
                found[oid] = int(size)
        return found

    @contextmanager
    def reader(self) -> Iterator["Reader"]:
        """Objects one after the other from one process."""
        with self._open("cat-file", "--batch", stdin=True) as process:
            yield Reader(process)

    @contextmanager
    def _open(self, *arguments: str, stdin: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [_program(), *_SAFE, *arguments],
                env=self._environment,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            try:
                yield process
                if process.stdin is not None:
                    process.stdin.close()
                if process.wait(60) != 0:
                    errors.seek(0)
                    said = without_userinfo(errors.read(2000).decode(errors="replace").strip())
                    raise UserError(f"git cannot read it: {said}", where=self.where, fix="Run git fsck in it")
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()


class Reader:
    """Reads objects from a running ``git cat-file --batch``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._ask, self._answer = process.stdin, process.stdout

    def read(self, oid: str) -> bytes | None:
        """The bytes of an object; None when it is not there."""
        self._ask.write(f"{oid}\n".encode())
        self._ask.flush()
        head = self._answer.readline().split()
        if len(head) != 3:
            return None
        data = self._answer.read(int(head[2]))
        self._answer.read(1)
        return data


def local_folder(path: Path, where: str) -> Path:
    """The git folder of a working copy, or a bare repository itself.

    Raises:
        UserError: it is neither.
    """
    inner = path / ".git"
    if inner.is_dir():
        return inner
    if inner.is_file():  # a linked working copy or a submodule: the file names the folder
        named = inner.read_text(encoding="utf-8", errors="replace")[:4096].strip()
        target = path / named.removeprefix("gitdir:").strip()
        if named.startswith("gitdir:") and target.is_dir():
            return target
    if (path / "HEAD").is_file() and (path / "objects").is_dir():
        return path
    problem = "not a git repository" if path.exists() else "no such folder"
    raise UserError(
        f"{problem}: {path}", where=where, fix="Name a folder with a repository, or an https:, ssh: or file: URL"
    )


@contextmanager
def fetched(
    url: str, revision: str | None, folder: Path, where: str, keep_below: int | None
) -> Iterator[tuple[Repository, str, "Fetcher"]]:
    """A remote repository's commit in a passing bare copy: its trees, and texts as ``keep_below`` says.

    Args:
        url: https, ssh or file.
        revision: branch, tag or whole commit id; None is the remote's default branch.
        folder: of the source's raw store.
        where: how errors name the source.
        keep_below: bring all files smaller than so many bytes at once; None brings none, ``Fetcher.bring`` does.

    Yields:
        The repository, the commit, and what brings more files of it.

    Raises:
        UserError: no git, no network, no such repository or revision, or no right to read it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{TEMPORARY}git-*"):
        shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}git-", dir=folder))
    try:
        repository = Repository(place, where, url.partition(":")[0])
        fetcher = Fetcher(repository, url, revision or "HEAD")
        fetcher.begin(keep_below)
        # Without these two a file that is missing is just missing, and git goes out for nothing by itself.
        for key in ("remote.origin.promisor", "remote.origin.partialclonefilter", "extensions.partialClone"):
            subprocess_ignore(repository, "config", "--unset-all", key)
        yield repository, repository.commit("FETCH_HEAD"), fetcher
    finally:
        shutil.rmtree(place, ignore_errors=True)


_FETCH = (
    "-c",
    "fetch.negotiationAlgorithm=noop",
    "fetch",
    "--quiet",
    "--no-tags",
    "--no-recurse-submodules",
    "--depth=1",
)


class Fetcher:
    """Brings a remote's objects into a bare copy."""

    def __init__(self, repository: Repository, url: str, revision: str) -> None:
        self._repository, self._url, self._revision = repository, url, revision

    def begin(self, keep_below: int | None) -> None:
        """The commit with its trees, and all files below a size."""
        self._run("init", "--quiet", "--bare", "--template=", str(self._repository.folder))
        self._run("config", "remote.origin.url", self._url)
        self._fetch(f"--filter={'blob:none' if keep_below is None else f'blob:limit={keep_below}'}", self._revision)

    def bring(self, oids: Iterable[str]) -> None:
        """Single files. A server that does not give single files is asked for the whole commit."""
        wanted = list(oids)
        if not wanted:
            return
        ask = "".join(f"{oid}\n" for oid in wanted).encode()
        try:
            self._repository.run(*_FETCH, "--no-write-fetch-head", "--filter=blob:none", "origin", "--stdin", data=ask)
        except subprocess.CalledProcessError:
            self._fetch("--refetch", self._revision)

    def _fetch(self, option: str, revision: str) -> None:
        self._run(*_FETCH, option, "origin", revision)

    def _run(self, *arguments: str) -> None:
        try:
            self._repository.run(*arguments)
        except subprocess.CalledProcessError as error:
            said = without_userinfo(error.stderr.decode(errors="replace").strip())
            raise _explained(said, without_userinfo(self._url), self._revision, self._repository.where) from error


def _explained(said: str, url: str, revision: str, where: str) -> UserError:
    lower = said.lower()
    lines = said.splitlines() or ["git said nothing"]
    last = next((line for line in lines if line.startswith("fatal:")), lines[-1])
    if "remote ref" in lower or "not our ref" in lower:
        return UserError(
            f"{url} has no {revision!r}", where=where, fix="Name a branch, a tag or the whole id of a commit after @"
        )
    if any(word in lower for word in ("authentication", "username", "permission denied", "403", "401", "host key")):
        return UserError(
            f"{url} does not let us read it ({last})",
            where=where,
            fix="Set up git's credential helper or an ssh key, so that git clone works without asking",
        )
    if any(word in lower for word in ("could not resolve", "timed out", "unable to access", "connection", "network")):
        return UserError(
            f"{url} cannot be reached ({last})",
            where=where,
            fix="Connect to the network, or clone it elsewhere and name the folder: git:FOLDER",
        )
    return UserError(f"{url} cannot be fetched ({last})", where=where, fix="Try git clone with this URL")


def subprocess_ignore(repository: Repository, *arguments: str) -> None:
    """Run git where failing means that there was nothing to do."""
    try:
        repository.run(*arguments)
    except subprocess.CalledProcessError:
        return


def _program() -> str:
    program = shutil.which("git")
    if program is None:
        raise UserError("git is not installed", fix="Run: apt-get install git")
    return program


def _git(arguments: Sequence[str], environment: dict[str, str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([_program(), *arguments], env=environment, input=data, capture_output=True, check=True)


def _split(stream: IO[bytes], mark: bytes) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(_CHUNK):
        *rows, rest = (rest + block).split(mark)
        yield from rows
    if rest:
        yield rest
