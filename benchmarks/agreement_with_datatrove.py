"""Whether rules named @datatrove decide as datatrove 0.10 does, filter by filter, on real documents; what differs is listed with its reason."""

import importlib.metadata
import sys
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from gptwright.corpus.recipes import Recipe, rule_sets
from gptwright.corpus.recipes.evaluate import evaluate
from gptwright.corpus.signals import measure
from signals_common import documents, machine, peer_decision, peer_filters, show

EACH = 700  # documents of each kind


def sample(each: int) -> dict[str, list[str]]:
    """Documents of each kind; chats long enough to pass a filter of 50 words come first."""
    return {kind: sorted(texts[: 4 * each], key=lambda t: len(t) < 400)[:each] for kind, texts in documents().items()}


def main() -> None:
    warnings.simplefilter("ignore")
    each = int(next((a.partition("=")[2] for a in sys.argv if a.startswith("--each=")), EACH))
    peers = peer_filters()
    agree: dict[str, list[int]] = {name: [] for name in [*peers, "all four"]}
    kept: Counter[str] = Counter()
    by_kind: dict[str, float] = {}
    reasons: list[str] = []
    total = 0
    for kind, texts in sample(each).items():
        signals = measure(pa.array(texts, pa.large_string()))
        ours, theirs = {}, {}
        for name, peer in peers.items():
            recipe = Recipe(name, tuple(rule for rule in rule_sets()[name] if rule.edit is None))
            outcomes = evaluate(recipe, signals)
            ours[name] = ~np.any([o.failed for o in outcomes], axis=0)
            decided = [peer_decision(peer, text) for text in texts]
            theirs[name] = np.array([keep for keep, _ in decided])
            for row in np.flatnonzero(ours[name] != theirs[name]):
                failed = [
                    f"{o.rule.id} {o.value[row]:.4g} {o.rule.op} {o.rule.threshold:g}"
                    for o in outcomes
                    if o.failed[row]
                ]
                why = decided[row][1] or "kept"
                reasons.append(
                    f"{kind} {row}: {name}: datatrove {why}; ours {'; '.join(failed) or 'kept'}; {texts[row][:60]!r}"
                )
            agree[name] += (ours[name] == theirs[name]).tolist()
            kept[name] += int(theirs[name].sum())
        all_ours, all_theirs = (np.all(list(side.values()), axis=0) for side in (ours, theirs))
        agree["all four"] += (all_ours == all_theirs).tolist()
        by_kind[kind] = float((all_ours == all_theirs).mean())
        total += len(texts)
    result: dict[str, Any] = {
        "name": "agreement_with_datatrove",
        "ours": float(np.mean(agree["all four"])),
        "peer": f"datatrove {importlib.metadata.version('datatrove')}",
        "theirs": 1.0,
        "unit": "share of documents decided alike, all four filters",
        "ratio": float(np.mean(agree["all four"])) / 0.97,
        "bar": 0.97,
        "documents": total,
        **{f"agree {name}": float(np.mean(each_)) for name, each_ in agree.items()},
        **{f"agree on {kind}": share for kind, share in by_kind.items()},
        **{f"kept by {name}": kept[name] / total for name in peers},
        "differences": reasons[:40],
        "machine": machine(),
    }
    if "--json" not in sys.argv:
        for reason in result.pop("differences"):
            print(reason)
    show(result)


if __name__ == "__main__":
    main()
