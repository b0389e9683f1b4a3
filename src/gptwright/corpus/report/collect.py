"""What a report tells, counted from a built corpus part by part: numbers and a few texts, no markup."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.corpus import tables
from gptwright.corpus.decide import STATE
from gptwright.corpus.evidence import DESCRIPTIONS
from gptwright.corpus.privacy import mask_pii
from gptwright.corpus.reading import at_rows, manifest
from gptwright.corpus.recipes import Recipe, Rule
from gptwright.corpus.recipes.evaluate import Outcome, columns, evaluate
from gptwright.corpus.report.histogram import Axis, Counts, Spread
from gptwright.corpus.whatif import Nearest

HOSTS = 100_000  # told apart at a time; the smallest are forgotten
EXCERPT = 280  # characters
SAMPLED_RULES = 10
SAMPLES_EACH = 3  # on either side of a threshold
CLUSTERS = 10
_BLANKS, _LINES = re.compile(r"[ \t]+"), re.compile(r"\s*\n\s*")
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@]*@)?([^/:?#]+).*$"


@dataclass
class Measure:
    """One rule's signal: how it is spread, and what the rule takes of it."""

    rule: Rule
    axis: Axis
    bins: list[int]
    n: int
    low: float
    median: float
    high: float
    failed: int
    languages: int  # that have a threshold of their own


@dataclass
class Sample:
    """A document at a rule's boundary."""

    source: str
    locator: str
    uid: str
    value: float
    threshold: float
    fails: bool
    kept: bool
    text: str


@dataclass
class Row:
    """An amount under a name."""

    name: str
    documents: int = 0
    bytes: int = 0


@dataclass
class Cluster:
    """A text that stands in several places."""

    copies: int
    source: str
    locator: str
    uid: str
    text: str


@dataclass
class Facts:
    """All that the page says, but for the mix."""

    manifest: dict[str, Any]
    recipe: Recipe
    sources: dict[str, dict[str, Any]]  # decide.Tally as a dictionary, by source
    alarms: list[str]
    measures: list[Measure] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    languages: list[Row] = field(default_factory=list)
    hosts: list[Row] = field(default_factory=list)
    hosted: Row = field(default_factory=lambda: Row("all with an address"))
    licences: list[Row] = field(default_factory=list)
    cluster_sizes: Counter[int] = field(
        default_factory=Counter
    )  # copies dropped for one kept text -> how many such texts
    clusters: list[Cluster] = field(default_factory=list)
    items: Counter[str] = field(default_factory=Counter)  # evaluation item -> documents dropped
    bytes_per_token: float = 4.0

    @property
    def kept(self) -> Row:
        """The whole corpus."""
        return Row(
            "kept",
            sum(of["kept"] for of in self.sources.values()),
            sum(of["bytes"] for of in self.sources.values()),
        )


def collect(corpus_dir: Path) -> Facts:
    """Count everything.

    Raises:
        UserError: the corpus is not built.
    """
    built = manifest(corpus_dir)
    if not (corpus_dir / STATE).exists():
        raise UserError(
            "the corpus was built by an older version", where=str(corpus_dir), fix="Run: gptwright data build"
        )
    state = read_json(corpus_dir / STATE)
    recipe = Recipe.from_data(state["recipe"])
    facts = Facts(built, recipe, state["sources"], state["alarms"])
    shown = _sampled_rules(facts)
    spread: dict[str, Spread] = {rule.id: Spread() for rule in recipe.document_rules}
    failed: Counter[str] = Counter()
    near = Nearest(SAMPLES_EACH)
    groups = {name: _Groups() for name in ("language", "host", "licence")}
    copies: list[Any] = []
    first = 0
    for number, part in enumerate(state["parts"]):
        for outcome in _outcomes(corpus_dir, number, recipe):
            spread[outcome.rule.id].add(_seen(outcome))
            failed[outcome.rule.id] += int(outcome.failed.sum())
            if outcome.rule.id in shown:
                near.add(outcome.rule.id, outcome, first)
        _group(corpus_dir, number, groups, facts)
        decisions = pq.read_table(tables.part_path(corpus_dir, "decisions", number), columns=["kept_uid", "eval_items"])
        copies.append(_heads(decisions["kept_uid"]))
        for one in pc.value_counts(pc.list_flatten(decisions["eval_items"])).to_pylist():
            facts.items[one["values"]] += one["counts"]
        first += part["rows"]
    facts.measures = _measures(corpus_dir, recipe, spread, failed, len(state["parts"]))
    facts.samples = _samples(corpus_dir, near, shown)
    facts.languages, facts.hosts, facts.licences = (groups[name].rows() for name in ("language", "host", "licence"))
    _clusters(corpus_dir, np.concatenate([*copies, np.zeros(0, np.uint64)]), len(state["parts"]), facts)
    return facts


def _sampled_rules(facts: Facts) -> list[str]:
    """The rules that drop most, by bytes."""
    lost: Counter[str] = Counter()
    for of in facts.sources.values():
        lost.update(of["failed_bytes"])
    own = {rule.id for rule in facts.recipe.document_rules}
    return [rule for rule, size in lost.most_common() if rule in own and size][:SAMPLED_RULES]


def _outcomes(corpus_dir: Path, number: int, recipe: Recipe) -> list[Outcome]:
    path = tables.part_path(corpus_dir, "signals", number)
    there = pq.read_schema(path).names
    return evaluate(recipe, pq.read_table(path, columns=[name for name in there if name in columns(recipe)]))


def _seen(outcome: Outcome) -> Any:
    """Values of documents that the rule looks at."""
    return outcome.value[~np.isnan(outcome.value) & ~np.isnan(outcome.threshold)]


def _measures(
    corpus_dir: Path, recipe: Recipe, spread: dict[str, Spread], failed: Counter[str], parts: int
) -> list[Measure]:
    rules = [rule for rule in recipe.document_rules if spread[rule.id].n]
    counts = {rule.id: Counts(spread[rule.id].axis([rule.threshold]), rule.op) for rule in rules}
    for number in range(parts):
        for outcome in _outcomes(corpus_dir, number, recipe):
            if outcome.rule.id in counts:
                counts[outcome.rule.id].add(_seen(outcome))
    return [
        Measure(
            rule,
            counts[rule.id].axis,
            counts[rule.id].bins.tolist(),
            spread[rule.id].n,
            spread[rule.id].low,
            spread[rule.id].quantile(0.5),
            spread[rule.id].high,
            failed[rule.id],
            sum(rule.id in of for of in recipe.by_language.values()),
        )
        for rule in rules
    ]


def excerpt(text: str) -> str:
    """The beginning of a text, without personal data, whatever the source's policy: a report is passed on."""
    masked, _ = mask_pii(text[: 4 * EXCERPT])
    masked = _LINES.sub("\n", _BLANKS.sub(" ", masked)).strip()
    return masked[:EXCERPT] + ("…" if len(masked) > EXCERPT else "")


def _samples(corpus_dir: Path, near: Nearest, rules: list[str]) -> dict[str, list[Sample]]:
    chosen = near.best()
    found = dict(at_rows(corpus_dir, [row for _, _, row, _, _ in chosen]))
    samples: dict[str, list[Sample]] = {rule: [] for rule in rules}
    for rule, fails, row, value, threshold in chosen:
        document, kept = found[row].document, found[row].decision["verdict"] == "keep"
        samples[rule].append(
            Sample(
                document.source, document.locator, document.uid, value, threshold, fails, kept, excerpt(document.text)
            )
        )
    for of in samples.values():
        of.sort(key=lambda sample: (not sample.fails, abs(sample.value - sample.threshold), sample.uid))
    return samples


class _Groups:
    """Amounts by name; of very many names the largest are kept."""

    def __init__(self) -> None:
        self.of: dict[str, Row] = {}

    def add(self, names: pa.Array, size: pa.ChunkedArray) -> None:
        table = pa.table({"name": names, "size": size}).group_by("name").aggregate([("size", "sum"), ([], "count_all")])
        for one in table.to_pylist():
            row = self.of.setdefault(one["name"], Row(one["name"]))
            row.documents += one["count_all"]
            row.bytes += one["size_sum"]
        if len(self.of) > HOSTS:
            self.of = {row.name: row for row in self.rows()[: HOSTS // 2]}

    def rows(self) -> list[Row]:
        return sorted(self.of.values(), key=lambda row: (-row.bytes, row.name))


def _group(corpus_dir: Path, number: int, groups: dict[str, _Groups], facts: Facts) -> None:
    """Count one part's kept documents by language, host and licence."""
    docs, signals, decisions = (tables.part_path(corpus_dir, t, number) for t in ("docs", "signals", "decisions"))
    kept = pc.equal(pq.read_table(decisions, columns=["verdict"])["verdict"], "keep")
    measured = "lang" in pq.read_schema(signals).names
    numbers = pq.read_table(signals, columns=["n_bytes_edited", *(["lang"] if measured else [])]).filter(kept)
    own = pq.read_table(docs, columns=["url", "license_id", "lang_declared"]).filter(kept)
    size = numbers["n_bytes_edited"]
    groups["language"].add(pc.fill_null(numbers["lang"] if measured else own["lang_declared"], "und"), size)
    groups["licence"].add(pc.fill_null(own["license_id"], "not known"), size)
    web = own["url"].is_valid()
    hosts = pc.utf8_lower(pc.replace_substring_regex(own["url"].filter(web), _HOST, r"\1"))
    groups["host"].add(hosts, size.filter(web))
    facts.hosted.documents += len(hosts)
    facts.hosted.bytes += pc.sum(size.filter(web)).as_py() or 0


def _heads(uids: pa.ChunkedArray) -> Any:
    """The first 8 bytes of the ids that are there: enough to tell texts apart, half as large."""
    data = uids.drop_null().combine_chunks()
    if isinstance(data, pa.ChunkedArray):
        data = data.combine_chunks()
    raw = np.frombuffer(data.buffers()[1], np.uint8) if len(data) else np.zeros(0, np.uint8)
    return raw[data.offset * 16 : (data.offset + len(data)) * 16].reshape(-1, 2, 8)[:, 0].copy().view("<u8").reshape(-1)


def _clusters(corpus_dir: Path, heads: Any, parts: int, facts: Facts) -> None:
    """How many copies texts have, and the texts that have most."""
    kept, copies = np.unique(heads, return_counts=True)
    facts.cluster_sizes = Counter(dict(zip(*(a.tolist() for a in np.unique(copies, return_counts=True)), strict=True)))
    most = np.lexsort((kept, -copies))[:CLUSTERS]
    wanted = dict(zip(kept[most].tolist(), copies[most].tolist(), strict=True))
    rows: dict[int, int] = {}
    first = 0
    for number in range(parts):
        uids = pq.read_table(tables.part_path(corpus_dir, "docs", number), columns=["doc_uid"])["doc_uid"]
        own = _heads(uids)
        for row in np.flatnonzero(np.isin(own, kept[most])).tolist():
            rows[first + row] = wanted[int(own[row])]
        first += len(uids)
    for row, found in at_rows(corpus_dir, rows):
        one = found.document
        facts.clusters.append(Cluster(rows[row], one.source, one.locator, one.uid, excerpt(one.text)))
    facts.clusters.sort(key=lambda cluster: (-cluster.copies, cluster.uid))


def total(facts: Facts, key: str, rule: str | None = None) -> int:
    """A tally over all sources."""
    return sum(of[key].get(rule, 0) if rule is not None else of[key] for of in facts.sources.values())


def rules_in_order(facts: Facts) -> list[str]:
    """Every rule that could have dropped something and did, in the order they are asked."""
    order = [rule.id for rule in facts.recipe.document_rules] + list(DESCRIPTIONS)
    return [rule for rule in dict.fromkeys(order) if total(facts, "failed", rule)]
