"""Cards say what the ledger says, and list what it does not."""

import json

import pytest
import yaml

from gptwright.core.errors import Refused, UserError
from gptwright.core.ledger import FileRow, Ledger, SourceRow
from gptwright.govern.applicability import GPAI_FLOP, applicability
from gptwright.govern.cards import write_cards
from gptwright.model.io import save_model
from gptwright.model.presets import modern
from gptwright.model.transformer import Transformer

MODEL = "demo-pretrain-0123456789"


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "work" / "ledger.sqlite") as opened:
        opened.set_sources(
            [
                SourceRow(
                    "chats", "package", "package:chitchat", "MIT", "package metadata", "A. Author", "yes", "mask"
                ),
                SourceRow(
                    "wiki",
                    "wiki",
                    "https://example.org/dump",
                    "CC-BY-SA-4.0",
                    "config",
                    "Wiki | authors\n# not a heading",
                    "unknown",
                    "mask",
                ),
            ]
        )
        opened.set_files(
            "chats",
            [
                FileRow("chats", "a.json", "ok", None, 750, 0, "b2:1", 5),
                FileRow("chats", "b", "unreadable", "x", 9, 0, "", 0),
            ],
        )
        opened.set_files("wiki", [FileRow("wiki", "w.txt", "ok", None, 250, 0, "b2:2", 2)])
        yield opened


def make_model(ledger, root, **meta):
    save_model(Transformer(modern(depth=1, vocab_size=128, seq_len=32)), root / "work" / "models" / MODEL)
    data = ledger.add_artifact(
        "corpus", stage="corpus", name="corpus", path="work/corpus", hash="b2:c", meta={"documents": 7, "bytes": 1000}
    )
    ledger.start_run("20260101-000000-abcd", "pretrain", {})
    ledger.finish_run("20260101-000000-abcd", "done", {"tokens": 1000, "tokens_per_s": 100.0, "flops_per_s": 5e6})
    return ledger.add_artifact(
        "model",
        stage="pretrain",
        name=MODEL,
        path=f"work/models/{MODEL}",
        hash="b2:m",
        parents=[data.id],
        meta=meta,
        run_id="20260101-000000-abcd",
    )


def test_write_cards_then_the_front_matter_and_tables_hold_the_ledger(ledger, tmp_path):
    make_model(ledger, tmp_path)
    ledger.add_evaluation(MODEL, "b2:m", "heldout", "bits_per_byte", 1.25, low=1.2, high=1.3, n=40, unit="bits/byte")
    ledger.add_evaluation(MODEL, "b2:other", "heldout", "bits_per_byte", 9.0, n=40, unit="bits/byte")
    written = write_cards(tmp_path, ledger, tmp_path / "out", "research")
    assert [path.name for path in written] == ["README.md", "DATASET_CARD.md", "ATTRIBUTION.md", "applicability.json"]
    text = written[0].read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["pipeline_tag"] == "text-generation"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 1.25
    assert "license" not in front
    assert "| heldout | bits_per_byte | 1.2500 | 1.2000 to 1.3000 | 40 | bits/byte |" in text
    assert "9.0" not in text
    assert "| pretrain | 20260101-000000-abcd | 1,000 | 5e+07 |" in text
    assert "75.0%" in text
    assert "[More Information Needed]" not in text
    head = next(line for line in text.splitlines() if line.startswith("> Not known"))
    assert head == "> Not known: licence of the model; language; whether source wiki holds personal data."


def test_write_cards_when_huggingface_reads_them_then_metadata_is_valid(ledger, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    make_model(ledger, tmp_path, license="Apache-2.0", language="en")
    ledger.add_evaluation(MODEL, "b2:m", "heldout", "bits_per_byte", 1.25, n=40, unit="bits/byte")
    written = write_cards(tmp_path, ledger, tmp_path / "out", "private")
    card = hub.ModelCard(written[0].read_text(encoding="utf-8"))
    assert card.data.license == "apache-2.0"
    assert card.data.eval_results[0].metric_value == 1.25
    data = hub.DatasetCard(written[1].read_text(encoding="utf-8")).data
    assert data.size_categories == ["n<1K"]
    assert data.license == "other"


def test_attribution_with_hostile_text_then_stays_on_one_line(ledger, tmp_path):
    make_model(ledger, tmp_path)
    text = write_cards(tmp_path, ledger, tmp_path / "out", "private")[2].read_text(encoding="utf-8")
    assert "\n# not" not in text
    assert "## CC-BY-SA-4.0" in text
    assert "name the author and the source" in text
    assert "A. Author" in text
    assert "**wiki** (<https://example.org/dump>)" in text


def test_write_cards_commercial_with_a_non_commercial_source_then_refused_and_nothing_written(ledger, tmp_path):
    make_model(ledger, tmp_path)
    rows = ledger.sources()
    ledger.set_sources([rows[1], SourceRow("songs", "folder", "songs", "CC-BY-NC-4.0", "config", None, "no", "mask")])
    ledger.set_files("songs", [FileRow("songs", "a", "ok", None, 10, 0, "b2:3", 1)])
    with pytest.raises(Refused, match="songs"):
        write_cards(tmp_path, ledger, tmp_path / "out", "commercial")
    assert not (tmp_path / "out").exists()


def dataset(ledger, name, **sources):
    """A dataset whose sources are given as name=(licence, bytes)."""
    meta = {
        source: {
            "kind": "folder", "uri": source, "license": license, "license_source": "config", "attribution": f"By {source}",
            "pii_policy": "mask", "contains_personal_data": "no", "bytes": size, "kept": 3, "files": {"ok": 1, "unreadable": 2},
        }
        for source, (license, size) in sources.items()
    }  # fmt: skip
    return ledger.add_artifact(
        "dataset", stage="corpus", name=name, path="work/corpus", hash=f"b2:{name}", meta={"sources": meta}
    )


def test_write_cards_when_a_source_is_removed_after_training_then_it_is_named_and_still_refused(ledger, tmp_path):
    data = dataset(ledger, "corpus-1", songs=("CC-BY-NC-4.0", 300), poems=("MIT", 100))
    ledger.add_artifact("model", stage="pretrain", name="m", path="x", hash="b2:m", parents=[data.id])
    assert "songs" not in [source.name for source in ledger.sources()]
    written = write_cards(tmp_path, ledger, tmp_path / "out", "research")
    named = written[2].read_text(encoding="utf-8")
    assert "**songs** (`songs`). By songs 75.0% of the text" in named
    assert "wiki" not in named
    assert "| songs | folder | `songs` | CC-BY-NC-4.0 | config | 3 | 2 | 75.0% |" in written[0].read_text(
        encoding="utf-8"
    )
    with pytest.raises(Refused, match="source songs is under CC-BY-NC-4.0"):
        write_cards(tmp_path, ledger, tmp_path / "no", "commercial")


def test_write_cards_when_data_came_twice_then_sources_are_united_and_changed_terms_kept_apart(ledger, tmp_path):
    first = dataset(ledger, "corpus-1", songs=("CC-BY-NC-4.0", 300), poems=("MIT", 100))
    second = dataset(ledger, "corpus-2", songs=("MIT", 300), poems=("MIT", 300), news=("CC0-1.0", 100))
    base = ledger.add_artifact("model", stage="pretrain", name="m1", path="x", hash="b2:m1", parents=[first.id])
    ledger.add_artifact("model", stage="refresh", name="m2", path="x", hash="b2:m2", parents=[second.id, base.id])
    named = write_cards(tmp_path, ledger, tmp_path / "out", "research")[2].read_text(encoding="utf-8")
    shares = {line.split("**")[1]: line.split(". By")[1].split()[1] for line in named.splitlines() if "**" in line}
    assert shares == {"songs (corpus-1)": "30.0%", "songs": "30.0%", "poems": "30.0%", "news": "10.0%"}
    with pytest.raises(Refused, match=r"source songs \(corpus-1\) is under CC-BY-NC-4.0"):
        write_cards(tmp_path, ledger, tmp_path / "no", "commercial")


def test_write_cards_without_a_model_then_user_error(ledger, tmp_path):
    with pytest.raises(UserError, match="no model yet"):
        write_cards(tmp_path, ledger, tmp_path / "out", "private")


def test_applicability_of_a_chain_then_adds_up_and_says_how_far_below(ledger, tmp_path):
    first = make_model(ledger, tmp_path)
    tuned = ledger.add_artifact(
        "model", stage="finetune", name="demo-finetune", path="x", hash="b2:t", parents=[first.id],
        meta={"tokens": 500, "tokens_per_s": 50.0, "flops_per_s": 5e6},
    )  # fmt: skip
    result = applicability(ledger, tuned)
    assert result.flop == pytest.approx(1000 * 5e4 + 500 * 1e5)
    assert [run.stage for run in result.runs] == ["pretrain", "finetune"]
    assert f"{GPAI_FLOP / 1e8:,.0f}" in result.statements[0]
    assert json.loads(json.dumps(result.to_json()))["training_flop"] == result.flop
    assert "not legal advice" in result.to_json()["notice"]


def test_applicability_of_an_adapted_model_then_names_the_base_and_the_third(ledger, tmp_path):
    base = ledger.add_artifact("model", stage="import", name="smollm2", path="x", hash="b2:s")
    tuned = ledger.add_artifact(
        "model", stage="finetune", name="mine", path="x", hash="b2:t", parents=[base.id],
        meta={"tokens": 500, "tokens_per_s": 50.0, "flops_per_s": 5e6},
    )  # fmt: skip
    assert "not recorded" in applicability(ledger, tuned).statements[1]
    assert "not reached" in applicability(ledger, tuned, base_flop=1e10).statements[1]
    assert ": reached" in applicability(ledger, tuned, base_flop=1e8).statements[1]


def test_applicability_when_a_run_kept_no_numbers_then_says_so(ledger):
    lost = ledger.add_artifact("model", stage="pretrain", name="lost", path="x", hash="b2:l")
    result = applicability(ledger, lost)
    assert result.not_recorded == ("lost",)
    assert "too low" in result.statements[0]


@pytest.mark.parametrize("tuned", [False, True])
def test_write_cards_when_a_stage_passed_the_model_through_then_it_is_the_same_model(ledger, tmp_path, tuned):
    first = make_model(ledger, tmp_path)
    passed = ledger.add_artifact(
        "model", stage="finetune", name=MODEL, path=first.path, hash=first.hash, parents=[first.id], meta={"passed_through": True}
    )  # fmt: skip
    newest = passed
    if tuned:
        newest = ledger.add_artifact(
            "model", stage="refresh", name="demo-refresh", path="x", hash="b2:r", parents=[passed.id],
            meta={"tokens": 500, "tokens_per_s": 50.0, "flops_per_s": 5e6},
        )  # fmt: skip
    result = applicability(ledger, newest)
    assert result.flop == pytest.approx(1000 * 5e4 + tuned * 500 * 1e5)
    assert result.not_recorded == ()
    text = write_cards(tmp_path, ledger, tmp_path / "out", "private")[0].read_text(encoding="utf-8")
    assert ("Descends from: " in text) == tuned
    assert text.count(f"{MODEL} (`b2:m`)") == tuned
    assert "training compute" not in text


def test_dataset_card_when_opt_outs_were_overridden_then_source_reason_and_counts_stand_in_it(ledger, tmp_path):
    data = dataset(ledger, "corpus-1", site=("CC0-1.0", 300), poems=("MIT", 100))
    meta = data.meta
    meta["sources"]["site"] |= {
        "consent_override": "permission\nby letter of 3 May",
        "about": {"opt_outs": {"noai": 2, "tdm": 1}},
    }
    data = ledger.add_artifact("dataset", stage="corpus", name="corpus-2", path="x", hash="b2:2", meta=meta)
    ledger.add_artifact("model", stage="pretrain", name="m", path="x", hash="b2:m", parents=[data.id])
    text = write_cards(tmp_path, ledger, tmp_path / "out", "private")[1].read_text(encoding="utf-8")
    said = text.partition("## Opt-outs that were overridden")[2].partition("##")[0].strip()
    assert said == "- site (opt-outs: noai 2, tdm 1): permission by letter of 3 May"


def test_cards_when_fine_tuning_read_files_of_no_source_then_their_licence_is_not_known(ledger, tmp_path):
    data = dataset(ledger, "corpus-1", letters=("MIT", 300))
    config = {"finetune.data": "chats.jsonl", "finetune.steps": [{"data": "letters/pairs.jsonl"}, {"method": "sft"}]}
    ledger.add_artifact(
        "model",
        stage="finetune",
        name="m",
        path="x",
        hash="b2:m",
        parents=[data.id],
        meta={"made_from": {"config": config}},
    )
    model, card = (
        p.read_text(encoding="utf-8") for p in write_cards(tmp_path, ledger, tmp_path / "out", "private")[:2]
    )
    assert "licence of the fine-tuning data chats.jsonl" in next(
        line for line in model.splitlines() if "Not known" in line
    )
    assert "| `chats.jsonl` | not known |" in card
    assert "| `letters/pairs.jsonl` | that of source letters |" in card
