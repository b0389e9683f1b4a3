"""``gptwright refresh``: new texts in a source lead to continued training, a comparison with production, and a candidate."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.core.hashing import b2_file, b2_json
from gptwright.core.ledger import Artifact, Ledger
from gptwright.core.lock import stage_lock
from gptwright.core.progress import say
from gptwright.corpus.mix import documents as mixed
from gptwright.corpus.view import documents
from gptwright.evaluate.bpb import bits_per_byte
from gptwright.evaluate.record import HELDOUT, record_bpb
from gptwright.evaluate.scores import BitsPerByte
from gptwright.model.config import ModelConfig
from gptwright.model.io import load_model
from gptwright.project.curating import gather
from gptwright.project.examples import data_files
from gptwright.project.heldout import heldout
from gptwright.project.models import ModelRef
from gptwright.project.pipeline import Job, recorded, run_id_for
from gptwright.project.releasing import register
from gptwright.project.scoring import load_to_score
from gptwright.project.stages import identity, weights_of, write_contents
from gptwright.project.tracking import onlookers
from gptwright.project.training import conversations, publish, train_config
from gptwright.project.tuning import tune_chain
from gptwright.release.gate import Verdict
from gptwright.release.refresh import Change, ContinuedTraining, RefreshWork, continued_training, what_is_new
from gptwright.release.refresh import refresh as decide
from gptwright.release.registry import PRODUCTION
from gptwright.tokens.plan import BatchPlan
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.slots import record_slots
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train.config import TrainConfig
from gptwright.train.dial import DIALLED, settings_for
from gptwright.train.loop import train

if TYPE_CHECKING:
    from gptwright.project.project import Project

_BYTES_PER_TOKEN = 4.0  # of English with a vocabulary of some thousands; only sizes the replay
_TUNE_SHARE = 0.3  # of the refresh's time, when there is something to fine-tune on


def refresh(project: "Project", if_changed: bool) -> tuple[dict[str, Any], str]:
    """Bring production up to date with the sources.

    Raises:
        UserError: production was not trained from scratch in this project, so there is no run to continue.
    """
    current = project.registry.current(PRODUCTION)
    gather(project)
    project.run(["corpus"])
    with stage_lock(project.work, "refresh"), project.ledger(readonly=False) as ledger:
        production = ledger.find("model", current.model_id) if current else None
        report = _Refresh(project, ledger, production).go(if_changed)
    return report.to_json(), "\n".join(textwrap.fill(part, 100) for part in report.sentence.split(". "))


class _Refresh:
    def __init__(self, project: "Project", ledger: Ledger, production: Artifact | None) -> None:
        self.project, self.ledger, self.production = project, ledger, production
        dataset = ledger.latest_of_stage("corpus")
        assert dataset is not None
        self.dataset = dataset
        self.corpus = project.work / "corpus"

    def go(self, if_changed: bool) -> Any:
        sizes = {identity(d): len(d.text.encode()) for d in documents(self.corpus)}
        old_heldout: set[str] = set()
        old: dict[str, int] = {}
        if self.production is not None:
            old_heldout = self._judged_on(self.production)
            self.base = self._base(self.production)
            old = dict.fromkeys(self._known_texts(self.base), 0)
        change = what_is_new(self.ledger, self.production, self.dataset, old, sizes)
        if change.kind == "changed" and not change.added and not change.removed:
            # A setting changed, or a source that repeats what is there: other bytes on disk, the same texts.
            change = replace(change, kind="none")
        train_sizes = {identity(d): len(d.text.encode()) for d in documents(self.corpus, "train")}

        def plan(gap: float | None) -> ContinuedTraining:
            folder = self.project.work / "runs" / str(self.base.run_id)
            stable = folder / "stable"
            final = sorted((folder / "checkpoints").glob("step-*"))
            # Text that fits the time, at the speed of the run that is continued.
            refresh = self.project.settings.refresh
            tokens = refresh.max_time * float(self.base.meta["tokens_per_s"])
            if refresh.max_steps is not None:
                shape = ModelConfig.model_validate(self.base.meta["shape"])
                before = self._as_before(train_config(self.project.settings.pretrain))
                tokens = float(refresh.max_steps * settings_for(shape, before).batch_tokens)
            budget = tokens * _BYTES_PER_TOKEN
            return continued_training(
                change,
                train_sizes,
                stable_checkpoint=str(stable) if stable.is_dir() else None,
                final_checkpoint=str(final[-1]) if final else None,
                budget_bytes=budget,
                replay=self.project.settings.refresh.replay,
                gap=gap,
            )

        return decide(
            change,
            self.production,
            old_heldout,
            plan,
            RefreshWork(self.evaluate, self.train, self.register),
            if_changed=if_changed,
        )

    def _judged_on(self, production: Artifact) -> set[str]:
        """The held-out documents of its first measurement: later ones, such as a refresh's, are on newer texts."""
        for row in self.ledger.evaluations(production.name, HELDOUT):
            if row.model_hash == production.hash and row.metric == "bits_per_byte" and row.detail:
                return set(BitsPerByte.from_detail(row.detail).uids)
        return set()

    def _base(self, production: Artifact) -> Artifact:
        """The pretraining run that production descends from."""
        lineage = [*self.ledger.ancestors(production.id), production]
        found = [a for a in lineage if a.kind == "model" and a.meta.get("pretrained")]
        if not found:
            raise UserError(
                f"{production.name} was not pretrained here, so there is no run to continue",
                fix="For an adapted open model, add the conversations and run: gptwright run",
            )
        return found[-1]

    def _known_texts(self, base: Artifact) -> list[str]:
        """The texts of the corpus that its newest token data set was written from."""
        sets = [self.project.root / a.path for a in self.ledger.ancestors(base.id) if a.kind == "tokens"]
        notes = [note for folder in sets if (note := folder.with_name(folder.name + ".contents.json")).is_file()]
        return list(read_json(notes[-1])) if notes else []

    def evaluate(self, model: Artifact) -> BitsPerByte:
        folder = self.project.root / model.path
        loaded = load_to_score(folder)
        result = bits_per_byte(loaded, Tokenizer.load(folder), documents(self.corpus, "heldout"), loaded.config.seq_len)
        record_bpb(self.ledger, model.name, model.hash, result)
        return result

    def train(self, settings: ContinuedTraining, change: Change) -> Artifact:
        """Continue pretraining on new and replayed text, then do every step of fine-tuning again."""
        project, ledger = self.project, self.ledger
        say(f"refresh: {settings.why}")
        folder = project.root / self.base.path
        tokenizer = Tokenizer.load(folder)  # the vocabulary stays: the weights mean these tokens
        wanted = {*change.added, *settings.replayed}
        shown = mixed(self.corpus, project.settings.corpus.mix, weights_of(project))
        chosen = [document for document in shown if identity(document) in wanted]
        steps = project.settings.finetune.chain()
        chats: list[Any] | None = None
        if steps[0].method in ("sft", "lora", "distill"):
            chats = list(conversations(Job(project, ledger, "", {}, "refresh"), steps[0]))
        tunes = len(steps) > 1 or chats is None or bool(chats)  # SFT without a conversation has nothing to do
        share = 1 - _TUNE_SHARE if tunes else 1.0
        shape = ModelConfig.model_validate(self.base.meta["shape"])
        config = train_config(
            project.settings.pretrain,
            **self._budget(share),
            **settings.overrides,
        )
        config = settings_for(shape, self._as_before(config), project.settings.model.preset)
        key = b2_json([self.dataset.hash, self.base.hash, sorted(wanted), config.model_dump(mode="json")])
        model = self._made(key)
        if model is None:
            run_id, _ = run_id_for(ledger, "refresh", key)
            with recorded(ledger, run_id, "refresh", {"key": key}):
                job = Job(project, ledger, run_id, {"corpus": self.dataset}, "refresh")
                target = project.work / "tokens" / f"refresh-{key[3:13]}"
                written = write_tokens(chosen, tokenizer, target)
                write_contents(target, documents(self.corpus))
                sizes = {"tokens": written.tokens, "documents": written.documents, "bytes": written.bytes}
                tokens = ledger.add_artifact(
                    "tokens", stage="refresh-tokens", name=f"tokens-{written.hash[3:13]}", path=target.relative_to(project.root).as_posix(),
                    hash=written.hash, parents=[self.dataset.id], meta=sizes,
                )  # fmt: skip
                rows = max(1, config.batch_tokens // shape.seq_len)
                measured = heldout(job, tokenizer, shape.seq_len, rows)
                start = Path(settings.start) if settings.start else None
                # Without a checkpoint the weights go on alone, and the optimizer begins anew.
                model_or_shape = shape if start is not None else load_model(folder)
                plan = BatchPlan(TokenDataset.open(target), shape.seq_len, rows, config.seed)
                run_dir = project.work / "runs" / run_id
                record_slots(plan, run_dir, project.root)
                result = train(
                    model_or_shape, plan, config,
                    run_dir=run_dir, ledger=ledger, heldout=measured, start=start, label="continue",
                    callbacks=onlookers(project, tokenizer),
                )  # fmt: skip
                facts = {
                    "parents": {"corpus": self.dataset.hash, "tokens": written.hash, "base": self.base.hash},
                    "steps": result.steps,
                }
                made = publish(job, result, folder, facts, pretrained=True)
                model = self._record(made, key, (tokens.id, self.base.id), run_id)
        return self._finetune(model, chats) if tunes else model

    def _as_before(self, config: TrainConfig) -> TrainConfig:
        """Rates and batch of the run that is continued, where they are not set by hand: the dial would take a short run's."""
        path = self.project.work / "runs" / str(self.base.run_id) / "config.json"
        before = read_json(path)["train"] if path.is_file() else {}
        kept = {n: before[n] for n in DIALLED if n in before and n not in config.model_fields_set}
        return config.model_copy(update=kept)

    def _finetune(self, base: Artifact, chats: Sequence[Any] | None) -> Artifact:
        """Every step of ``[finetune]`` again, on the weights that went on; the steps share the time alike."""
        project, ledger = self.project, self.ledger
        steps = project.settings.finetune.chain()
        configs = [train_config(step, **self._budget(_TUNE_SHARE / len(steps))) for step in steps]
        files = [b2_file(path) for step in steps for _, path in data_files(project, step)]
        key = b2_json(
            [base.hash, self.dataset.hash, files, [step.model_dump(mode="json") for step in steps],
             [config.model_dump(mode="json") for config in configs]]
        )  # fmt: skip
        model = self._made(key)
        if model is not None:
            return model
        run_id, _ = run_id_for(ledger, "refresh-sft", key)
        with recorded(ledger, run_id, "refresh-sft", {"key": key}):
            job = Job(project, ledger, run_id, {"corpus": self.dataset}, "refresh-sft")
            folder = project.root / base.path
            result, adapter = tune_chain(job, ModelRef(base.name, folder, base.hash, base.id), chats, configs)
            facts = {
                "parents": {"corpus": self.dataset.hash, "base": base.hash},
                "base": {"id": base.name, "hash": base.hash},
                "steps": result.steps,
                "methods": [step.method for step in steps],
            }
            return self._record(publish(job, result, folder, facts, adapter), key, (base.id,), run_id)

    def _budget(self, share: float) -> dict[str, Any]:
        """A share of the refresh's steps, or else of its time."""
        refresh = self.project.settings.refresh
        if refresh.max_steps is not None:
            return {"max_steps": max(1, round(share * refresh.max_steps)), "max_time": None}
        return {"max_steps": None, "max_time": share * refresh.max_time}

    def _made(self, key: str) -> Artifact | None:
        """The model of the same work, when a refresh was stopped after it or is asked for again."""
        models = [a for a in self.ledger.artifacts("model") if a.key == key and (self.project.root / a.path).is_dir()]
        return models[-1] if models else None

    def _record(self, made: Any, key: str, parents: tuple[int, ...], run_id: str) -> Artifact:
        return self.ledger.add_artifact(
            made.kind, stage="refresh", name=made.name, path=made.path, hash=made.hash, key=key,
            parents=[self.dataset.id, *parents], meta=made.meta, run_id=run_id,
        )  # fmt: skip

    def register(self, model: Artifact, _after: BitsPerByte, _before: BitsPerByte) -> Verdict:
        return register(self.project, self.ledger, model)
