"""spaCy trains with `instep.thinc` from a config."""

from __future__ import annotations

import io
import sys
from typing import Any

import bench_folder
import pytest

spacy = pytest.importorskip("spacy", reason="needs spaCy")
sys.path.append(str(bench_folder.BENCH / "hosts"))
import spacy_textcat  # noqa: E402
from spacy.training.loop import train  # noqa: E402

from instep import thinc as ours  # noqa: E402


@pytest.mark.parametrize("rule", ["Adam", "SGD"])
def test_a_text_classifier_learns_the_same(rule: str) -> None:
    numbers = {"learn_rate": 0.1} if rule == "SGD" else {}
    found = []
    for name in (f"{rule}.v1", f"instep.{rule}.v1"):
        training = spacy_textcat.Training(name, examples=256, batch=16, **numbers)
        assert isinstance(training.optimizer, ours.Optimizer) == name.startswith("instep")
        for _ in range(2):
            training.epoch()
        found.append((training.losses, training.score(200)))
    (losses, auc), (our_losses, our_auc) = found
    assert our_losses[0] == pytest.approx(losses[0], rel=1e-3)
    assert our_losses[-1] == pytest.approx(losses[-1], rel=2e-2)
    assert our_auc == pytest.approx(auc, abs=0.01)
    if rule == "Adam":
        assert our_losses[-1] < our_losses[0] * 0.7
        assert our_auc > 0.7


@spacy.registry.readers("instep_test_corpus.v1")
def corpus(count: int, seed: int) -> Any:
    def read(nlp: Any) -> Any:
        texts = spacy_textcat.corpus(count, seed)
        return [spacy.training.Example.from_dict(nlp.make_doc(t), said) for t, said in texts]

    return read


CORPORA = """
[training]
seed = 0
gpu_allocator = null
max_steps = 24
eval_frequency = 8
train_corpus = "corpora.train"
dev_corpus = "corpora.dev"

[corpora]

[corpora.train]
@readers = "instep_test_corpus.v1"
count = 100
seed = 1

[corpora.dev]
@readers = "instep_test_corpus.v1"
count = 50
seed = 2
"""


@pytest.mark.parametrize("averaged", [False, True])
def test_the_training_of_spacy(averaged: bool) -> None:
    """``spacy train``: the config is validated, schedules go on, averages are shown to the evaluation."""
    found = []
    for name in ("Adam.v1", "instep.Adam.v1"):
        config = spacy_textcat.config(name, use_averages=averaged)
        rate = {"@schedules": "warmup_linear.v1", "warmup_steps": 4, "total_steps": 40}
        config["training"]["optimizer"]["learn_rate"] = {**rate, "initial_rate": 0.01}
        config = config.merge(spacy_textcat.Config().from_str(CORPORA))
        spacy_textcat.fix_random_seed(0)
        nlp = spacy.training.initialize.init_nlp(config)
        told = io.StringIO()
        trained, _ = train(nlp, stdout=told, stderr=told)
        examples = corpus(200, 3)(trained)
        found.append(trained.evaluate(examples)["cats_macro_auc"])
        assert "0.0" in told.getvalue()
    assert found[1] == pytest.approx(found[0], abs=0.02)
