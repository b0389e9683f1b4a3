"""A MediaWiki XML dump of the person's own, or a folder of them: listed like files, read by the wiki reader."""

from pathlib import Path

from gptwright.corpus.sources.base import Listing, Request
from gptwright.corpus.sources.folder import list_path


def listing(request: Request) -> Listing:
    """List ``wiki:DUMP``, a file or a folder of dumps.

    Raises:
        UserError: it is not there, or the folder holds nothing.
    """
    found = list_path(request.name, request.root / Path(request.rest).expanduser(), kind="wiki")
    found.kind = "wiki"
    return found
