"""A text classifier of spaCy, trained with thinc's optimizer and with instep's.

The model is spaCy's default `textcat` in a blank English pipeline, the corpus is made of random words, and the
optimizer is that of spaCy's default config. Both train on the same batches from the same start, an epoch at a time, in
turns. The share is that of the time within the optimizer. Documents and optimizers stay in memory, as in a program that
goes on training.

    pip install spacy
    python bench/hosts/spacy_textcat.py [--optimizer Adam] [--batch 8] [--batches 6] [--seconds 40] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import spacy
import thinc
from spacy.training import Example
from thinc.api import Config, fix_random_seed

import instep
from machine import describe
from package import options as allowed
from package import turns
from tables import duration, plain_table

CONFIG = """
[nlp]
lang = "en"
pipeline = ["textcat"]

[components]

[components.textcat]
factory = "textcat"

[training]

[training.optimizer]
@optimizers = "Adam.v1"
beta1 = 0.9
beta2 = 0.999
L2_is_weight_decay = true
L2 = 0.01
grad_clip = 1.0
use_averages = false
eps = 1e-8
learn_rate = 0.001
"""
LABELS = ("A", "B")
WORDS = [f"word{i}" for i in range(2000)]


def corpus(count: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Texts of random words. Three words in ten are from a list of their label; the lists overlap."""
    rng = random.Random(seed)
    typical = {"A": WORDS[:200], "B": WORDS[100:300]}
    found = []
    for _ in range(count):
        label = rng.choice(LABELS)
        words = [
            rng.choice(typical[label] if rng.random() < 0.3 else WORDS)
            for _ in range(rng.randint(10, 30))
        ]
        found.append((" ".join(words), {"cats": {one: float(one == label) for one in LABELS}}))
    return found


def config(optimizer: str, **numbers: Any) -> Config:
    """The config with another optimizer, by its name in thinc's registry."""
    found = Config().from_str(CONFIG)
    chosen = found["training"]["optimizer"]
    chosen |= {"@optimizers": optimizer, **numbers}
    if "SGD" in optimizer:
        for name in ("beta1", "beta2", "eps"):
            del chosen[name]
    return found


class Training:
    """A pipeline, its examples, and an optimizer whose time is taken."""

    def __init__(self, optimizer: str, examples: int, batch: int, **numbers: Any) -> None:
        fix_random_seed(0)
        self.nlp = spacy.util.load_model_from_config(config(optimizer, **numbers), auto_fill=True)
        self.examples = self.of(corpus(examples, 1))
        self.optimizer = self.nlp.initialize(lambda: self.examples)
        layers = self.nlp.get_pipe("textcat").model.walk()
        self.parameters = sum(
            one.get_param(name).size for one in layers for name in one.param_names
        )
        self.batch, self.epochs, self.within = batch, 0, 0.0
        self.losses: list[float] = []

    def of(self, texts: list[tuple[str, dict[str, Any]]]) -> list[Example]:
        return [Example.from_dict(self.nlp.make_doc(text), said) for text, said in texts]

    def _timed(self, *args: Any) -> Any:
        begin = time.perf_counter()
        found = self.optimizer(*args)
        self.within += time.perf_counter() - begin
        return found

    def epoch(self) -> float:
        """Train for an epoch, and return its time; `within` is the optimizer's part."""
        fix_random_seed(self.epochs)  # of the dropout
        losses: dict[str, float] = {}
        self.within = 0.0
        begin = time.perf_counter()
        for batch in spacy.util.minibatch(self.examples, self.batch):
            self.nlp.update(batch, sgd=self._timed, losses=losses)
            self.optimizer.step_schedules()
        took = time.perf_counter() - begin
        self.epochs += 1
        self.losses.append(losses["textcat"])
        return took

    def score(self, examples: int) -> float:
        """The macro-averaged AUC over texts that were not trained on."""
        found: float = self.nlp.evaluate(self.of(corpus(examples, 2)))["cats_macro_auc"]
        return found


def with_threads(threads: int, call: Callable[[], float]) -> float:
    with instep.num_threads(threads):
        return call()


def measure(optimizer: str, examples: int, batch: int, seconds: float) -> dict[str, Any]:
    threads = instep.get_num_threads()
    names = {"thinc": (f"{optimizer}.v1", 1), "instep, 1 thread": (f"instep.{optimizer}.v1", 1)}
    if threads > 1:
        names[f"instep, {threads} threads"] = (f"instep.{optimizer}.v1", threads)
    made = {label: Training(name, examples, batch) for label, (name, _) in names.items()}
    shares: dict[str, list[float]] = {label: [] for label in made}

    def epoch(label: str) -> float:
        took = with_threads(names[label][1], made[label].epoch)
        shares[label].append(made[label].within / took)
        return took

    for label in made:
        epoch(label)
    times = turns.take_turns({label: partial(epoch, label) for label in made}, seconds)
    found: dict[str, Any] = {
        "optimizer": optimizer,
        "batch": batch,
        "batches": -(-examples // batch),
        "parameters": made["thinc"].parameters,
        "contestants": {},
    }
    for label, training in made.items():
        found["contestants"][label] = {
            "epoch": statistics.median(times[label]),
            "rounds": len(times[label]),
            "share": statistics.median(shares[label]),
            "times as fast": turns.ratio(times["thinc"], times[label]),
            "first loss": training.losses[0],
            "auc": training.score(500),
        }
    return found


def as_text(found: dict[str, Any]) -> str:
    lines = [("optimizer of", "epoch", "in the optimizer", "x as fast", "first loss", "AUC")]
    for label, one in found["contestants"].items():
        lines.append(
            (
                label,
                duration(one["epoch"]),
                f"{one['share']:.0%}",
                f"{one['times as fast']:.2f}",
                f"{one['first loss']:.4f}",
                f"{one['auc']:.4f}",
            )
        )
    rounds = next(iter(found["contestants"].values()))["rounds"]
    title = (
        f"{found['optimizer']}, {found['parameters']:,} parameters, epochs of {found['batches']} "
        f"batches of {found['batch']} texts, medians of {rounds} rounds"
    )
    return f"{title}\n{plain_table(lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizer", choices=["Adam", "RAdam", "SGD"], default="Adam")
    parser.add_argument("--batch", type=allowed.count, default=8, help="texts")
    parser.add_argument("--batches", type=allowed.count, default=6, help="of an epoch")
    parser.add_argument("--seconds", type=allowed.seconds, default=40.0, help="of turns")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    machine = describe() | {"spacy": spacy.__version__, "thinc": thinc.__version__}
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    examples = arguments.batch * arguments.batches
    found = measure(arguments.optimizer, examples, arguments.batch, arguments.seconds)
    print(as_text(found))
    if arguments.json:
        report = {"machine": machine, **found}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
