"""Licences: names and texts to SPDX expressions with their source and confidence, policies, what a corpus holds, reviews by a person.

``names`` normalises, ``expressions`` evaluates, ``texts`` and ``headers`` detect, ``manifests`` and ``packages`` read metadata, ``around``
decides for a file among others, ``table`` sums a corpus up, ``policy`` refuses, ``review`` keeps what a person decided.
"""

from gptwright.corpus.licences.base import Licence
from gptwright.corpus.licences.names import normalise, spdx_id
from gptwright.corpus.licences.packages import package_licence

__all__ = ["Licence", "normalise", "package_licence", "spdx_id"]
