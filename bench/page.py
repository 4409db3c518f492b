"""The page of one machine in docs/benchmarks: every figure on it comes from the results beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import extras
import loop
import pictures
import scaling
import storage_speed
import training
from harness import ARITHMETIC, LIMIT, SAME_ARRAYS
from peers import PEERS
from results import Pieces, Results
from rows import EVERYONE, ROWS, RULES, TORCH, Row
from tables import duration, markdown_table
from targets import COLUMNS, Verdict, best_of, loop_ratio, median_over
from task import NO_STEP, OURS
from traffic import passes_of

STEPS, GROWTH, TRAINING = "steps.png", "scaling.png", "training.png"
AS_FAST = 0.02  # ratios this close to 1 say nothing

HEAD = """# Benchmarks: {machine}

Made by `{command}` from [results.json](results.json), where every figure
below is, pass by pass, with quartiles and the number of rounds. Measure your own machine:
[bench/README.md](../../../bench/README.md); with nothing but the wheel, `instep bench`.
"""

HOW = f"""## How it is measured

- **Ratios.** The machine does other things too, so an absolute time says little. The contestants of a row take turns,
  A B C A B C ..., a few milliseconds each (one call, where that is longer), for up to 101 rounds. Who takes more than
  five times as long as instep, and a tenth of a second or more, takes part in one round of three. A ratio is the median
  over the rounds of the two times in the same round; a time is the median over the rounds.
- **Passes.** Even ratios differ from one quarter of an hour to the next, where others share the machine's memory. So
  everything is measured in several passes, minutes apart and each with its contestants started anew, and a figure is
  the median over the passes.
- **One at a time.** Each contestant runs in a process of its own, as in its users' programs. Between turns the process
  is stopped (SIGSTOP) with all its threads, which else would go on spinning and take the cores from whoever comes
  next. A turn begins with calls that are not counted: the caches hold the contestant's arrays again, its threads are
  awake. (Calls of half a second and more count alone.)
- **Freed memory is kept** from the start, as in a program that has run for a while: glibc gives large blocks back to
  the system until larger ones have been freed, and the page faults of its intermediate arrays would be most of what a
  NumPy expression takes. In the loop nothing is done about it, as in a program of one's own; NumPy's expression has a
  second line there, with freed memory kept.
- **The memory limit** is a loop over streams of the same bytes (Adam: four read, three written) that computes next to
  nothing. It has a turn on one thread, on all with a fixed share each, and on all by chunks; the way that is fastest
  counts. Its streams are arrays of all parameters; with *same arrays* they are the model's own parameters and
  gradients, where NumPy has put them, and the states of an optimizer. In the loop these are the loop's arrays, which
  NumPy has just read or written; there it takes part on all threads and on one, and the better of both counts.
- **Heats.** Contestants that don't fit memory together are split; instep and the memory limits are in every heat. Times
  of different heats, rows and sections are not the same minute's, and in "A call" nobody else takes turns: only ratios
  compare.
- **Other arrays.** Where arrays come to lie in memory can matter as long as they live. In each heat all get theirs
  anew, and where a step over 10 million parameters or more needs no heats, three times, each time in another order.
  In a row of a rule all start once a pass.
- **Peers at their best**: NumPy as an expression and with every result put in place (`out=`), PyTorch `fused=True`,
  DeepSpeed's CPUAdam as compiled for this CPU, optax under `jax.jit` with donated buffers, Numba's `prange` with
  `fastmath`, all with their own choice of threads. They get their arrays as they like them; nothing is converted within
  a measured step.
- **The loop** runs each contestant's whole training loop in its process, a tenth of a second at a time, stopped a tenth
  of a second after its turn, when NumPy's threads are asleep. Nothing is stopped within an iteration: what a step
  leaves spinning, NumPy's matrix products feel. At batch {loop.JUDGED} all start anew three times a pass
  and have seven rounds each time; the other batches, with seven rounds a pass, tell no more than tenths.
"""


def write(folder: Path, results: Results, verdicts: Sequence[Verdict]) -> None:
    machine, pieces = results.machine, results.together
    whose = f"{machine['cpu']}, {machine['cores']} cores"
    where = f"{whose}, {machine['isa']}"
    head = HEAD.format(machine=whose, command=_command(folder))
    sections = [head, _setting(results, pieces), HOW, _to_reach(verdicts)]
    if _measured(pieces, plain=True):
        pictures.steps(folder / STEPS, pieces, where)
        sections.append(_steps(pieces))
    if any(name.startswith("step/") for name in pieces):
        sections += [_rules(pieces), _others(pieces), _not_winning(pieces, verdicts)]
    if any(name.startswith("loop/") for name in pieces):
        sections.append(_loop(pieces, results.passes))
    if any(name.startswith("scaling/") for name in pieces):
        pictures.growth(folder / GROWTH, pieces, where, machine["cores"])
        sections.append(_scaling(pieces, machine["cores"]))
    pictures.trainings(folder / TRAINING, pieces, where)
    sections += [
        _extras(pieces),
        storage_speed.section(pieces),
        training.section(pieces, TRAINING),
        _rest(pieces),
    ]
    (folder / "README.md").write_text("\n".join(filter(None, sections)), encoding="utf-8")


def _command(folder: Path) -> str:
    """What makes the page; to measure into another page's folder would replace that."""
    root = Path(__file__).parents[1]
    where = folder.resolve()
    where = where.relative_to(root) if where.is_relative_to(root) else where
    return f"python bench/report.py --all --folder {where.as_posix()}"


def _setting(results: Results, pieces: Pieces) -> str:
    machine, whens = results.machine, results.whens
    versions: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for piece in pieces.values():
        versions |= piece.get("versions", {})
        left_out |= piece.get("left out", {})
    counts = Counter(results.times(name) for name in pieces)
    usual = counts.most_common(1)[0][0]
    others = [f"{n}: {results.times(n)}" for n in pieces if results.times(n) != usual]
    passes = f"{usual} pass{'es' if usual > 1 else ''}"
    passes += f" ({', '.join(others)})" if others else ""
    lines = [
        (
            "machine",
            f"{machine['cpu']}, {machine['cores']} cores; {machine['caches']}; {machine['system']}",
        ),
        (
            "instep",
            f"{machine['instep']}, {machine['isa']}, {machine['threads']} threads; {machine['compiler']}; "
            f"build {machine['build']}",
        ),
        ("with", f"Python {machine['python']}, NumPy {machine['numpy']}"),
        (
            "peers",
            ", ".join(f"{k} {v}" for k, v in versions.items() if k not in ("instep", "NumPy")),
        ),
        (
            "measured",
            f"{passes}, " + (whens[0] if whens[0] == whens[-1] else f"{whens[0]} to {whens[-1]}"),
        ),
        ("left out", "; ".join(f"{who}: {why}" for who, why in left_out.items()) or "nobody"),
    ]
    return f"## Setting\n\n{markdown_table([('', ''), *lines])}\n".replace("| ---:", "| ---")


def _to_reach(verdicts: Sequence[Verdict]) -> str:
    rows = [COLUMNS, *(verdict.cells() for verdict in verdicts)]
    return (
        "## What was to be reached\n\nWritten down before it was measured. Against a peer: its time by instep's. "
        "Measured: the median over the passes (of two their mean); by pass: the least and the most of them; passes: "
        "how many there are. The last column says whether the median meets what was wanted and, where not all passes "
        "do or don't, how many by themselves say the same.\n\n"
        "At best: the same figure for a step that takes as long as the memory limit measured beside it (beside that "
        "itself, and in the loop, the one of the same arrays); beside NumPy's in the loop, for a step of no time. It "
        "scatters as the rest does, so a figure may lie beyond it.\n\n"
        f"{markdown_table(rows)}\n"
    )


def _matrix(pieces: Pieces, names: Sequence[str], peers: Sequence[str]) -> str:
    """Rows by contestants: instep's time, and the others' by it."""
    rows = [("", OURS, *(peer for peer in peers if peer != OURS))]
    for name in names:
        contestants = pieces[f"step/{name}"]["contestants"]
        cells = [
            f"{contestants[peer]['by instep']:.2f}" if peer in contestants else ""
            for peer in peers
            if peer != OURS
        ]
        rows.append((name, duration(contestants[OURS]["median"]), *cells))
    return markdown_table(rows)


def _measured(pieces: Pieces, *, plain: bool) -> list[Row]:
    return [
        row
        for name, row in ROWS.items()
        if f"step/{name}" in pieces and (name == row.task.workload) == plain
    ]


def _steps(pieces: Pieces) -> str:
    rows = _measured(pieces, plain=True)
    shapes = [("workload", "tensors", "parameters")]
    shapes += [(r.name, f"{len(r.task.shapes):,}", f"{r.task.elements:,}") for r in rows]
    return (
        "## A step of Adam in float32\n\ninstep's time, and the others' by it: above 1, instep is faster.\n\n"
        f"{_matrix(pieces, [r.name for r in rows], EVERYONE)}\n\n![Bars by workload]({STEPS})\n\n"
        f"{markdown_table(shapes)}\n"
    )


def _others(pieces: Pieces) -> str:
    rows = [row for row in _measured(pieces, plain=False) if not row.rule]
    if not rows:
        return ""
    peers = [p for p in PEERS if any(p in pieces[f"step/{r.name}"]["contestants"] for r in rows)]
    named = "\n".join(f"- {row.name}: {row.title}" for row in rows)
    table = _matrix(pieces, [row.name for row in rows], peers)
    return f"## Other formats and layouts\n\n{table}\n\n{named}\n"


def _rules(pieces: Pieces) -> str:
    """A row a rule, with what was measured of it."""
    peers = {"gpt2": (LIMIT, SAME_ARRAYS), "mlp": (LIMIT,)}
    header = ["", "bytes"]
    for workload, limits in peers.items():
        header += [workload, *limits, "PyTorch's best", "optax"]
    table = [header]
    for name in dict.fromkeys(rule for rule, _ in RULES):
        found = {on: pieces.get(f"step/{RULES[name, on].name}") for on in peers}
        if any(found.values()):
            passes = passes_of(RULES[name, "gpt2"].task)
            cells = [name, str(sum(map(sum, passes)))]
            for workload, limits in peers.items():
                contestants = found[workload]["contestants"] if found[workload] else {}
                cells += _rule_cells(contestants, limits)
            table.append(cells)
    if len(table) == 1:
        return ""
    return (
        "## A row a rule\n\nIn float32: the bytes that a step moves for each parameter, and on GPT-2's tensors and in "
        "the caches instep's time and the others' by it: above 1, instep is faster. PyTorch's best is the quickest of "
        "its forms, which is named. A rule with sums over a tensor (LAMB, LARS, Prodigy, `clip_update`) reads once "
        "more what it adds up, and so does the memory limit.\n\n"
        f"{markdown_table(table)}\n"
    )


def _rule_cells(contestants: Mapping[str, Any], limits: Sequence[str]) -> list[str]:
    def by_instep(peer: str) -> str:
        return f"{contestants[peer]['by instep']:.2f}" if peer in contestants else ""

    ours = duration(contestants[OURS]["median"]) if OURS in contestants else ""
    try:
        form, best = best_of(TORCH, contestants)
        pytorch = f"{best:.2f} ({form.removeprefix('torch ')})"
    except KeyError:
        pytorch = ""
    return [ours, *map(by_instep, limits), pytorch, by_instep("optax")]


def _losses(pieces: Pieces) -> Iterator[tuple[str, str, float]]:
    names = {f"step/{row}": row for row in ROWS}
    names |= {f"loop/{batch}": f"loop, batch {batch}" for batch in loop.BATCHES}
    names |= {f"scaling/{size}": f"{size:,} parameters" for size in scaling.SIZES}
    found_by_name = {name: pieces.get(piece, {}) for piece, name in names.items()}
    for piece in training.PIECES:
        rows = pieces.get(f"torch/{piece}", {}).get("rows", {})
        found_by_name |= {f"torch/{piece}, {row}": found for row, found in rows.items()}
    for name, of in found_by_name.items():
        contestants = of.get("contestants", {})
        for peer, found in contestants.items():
            compares = peer not in (OURS, NO_STEP, LIMIT, ARITHMETIC, *loop.LIMITS)
            if compares and found["by instep"] < 1 + AS_FAST:
                yield name, peer, found["by instep"]


def _not_winning(pieces: Pieces, verdicts: Sequence[Verdict]) -> str:
    rows = [("row, loop or size", "beside", "its time by instep's", "")]
    for name, peer, by_instep in _losses(pieces):
        rows.append(
            (name, peer, f"{by_instep:.2f}", "faster" if by_instep < 1 - AS_FAST else "as fast")
        )
    table = markdown_table(rows) if len(rows) > 1 else "Nowhere in the rows above."
    missed = [verdict.target.what for verdict in verdicts if verdict.met is False]
    targets = f"Of [what was to be reached](#what-was-to-be-reached) it missed: {'; '.join(missed) or 'nothing'}."
    return (
        f"## Where instep does not win\n\n{table}\n\n{targets}\n\n"
        "Out of cache a step waits for memory as long as its arithmetic keeps up: the columns of the memory limit say "
        "how near it comes. On a step alone, threads that spin are awake when it begins; instep's have to be woken, "
        "which a training loop repays (below).\n"
    )


def _loop(pieces: Pieces, passes: Sequence[Pieces]) -> str:
    batches = [batch for batch in loop.BATCHES if f"loop/{batch}" in pieces]
    labels = list(pieces[f"loop/{batches[-1]}"]["contestants"])
    rows = [("step", *(f"batch {batch}" for batch in batches))]
    for label in labels:
        cells = []
        for batch in batches:
            contestants = pieces[f"loop/{batch}"]["contestants"]
            ratio = median_over(loop_ratio(batch, [NO_STEP], label), passes)
            if ratio is None:
                cells.append("")
                continue
            cells.append(f"{duration(contestants[label]['median'])} ({ratio:.2f})")
        rows.append((label, *cells))
    return (
        "## A training loop\n\nA NumPy perceptron, 784-256-128-10: an iteration of forward, backward and step, and, in "
        "brackets, its time by that of forward and backward alone. Each is compared with instep in the same rounds and "
        "the two ratios are divided; the figure is the median over the passes. So it isn't the quotient of the times "
        f"beside it, and it is the one to trust.\n\n{markdown_table(rows)}\n"
    )


def _scaling(pieces: Pieces, cores: int) -> str:
    sizes = [size for size in scaling.SIZES if f"scaling/{size}" in pieces]
    fewer = scaling.on_fewer_threads(OURS, cores)
    labels = [OURS, *fewer, LIMIT]
    rows = [("parameters", *labels, *(f"{label} / {OURS}" for label in fewer))]
    for size in sizes:
        contestants = pieces[f"scaling/{size}"]["contestants"]
        times = [duration(contestants[k]["median"]) if k in contestants else "" for k in labels]
        speed_up = [f"{contestants[k]['by instep']:.2f}" for k in fewer]
        rows.append((f"{size:,}", *times, *speed_up))
    return (
        f"## From 10³ to 10⁸ parameters\n\n![Time by number of parameters]({GROWTH})\n\n"
        f"{markdown_table(rows)}\n"
    )


def _extras(pieces: Pieces) -> str:
    if "extras" not in pieces:
        return ""
    found = pieces["extras"]
    return (
        f"## What extras cost\n\nAdam, float32, {found['elements']:,} parameters: bytes moved and time, by the plain "
        "step's; last, the time of the memory limit's loop over the same streams, by that of its plain one and by the "
        "step's own.\n\n"
        f"{markdown_table(extras.rows(found))}\n"
    )


def _rest(pieces: Pieces) -> str:
    parts = []
    if "call" in pieces:
        calls = [(k, duration(t)) for k, t in pieces["call"]["steps"].items()]
        parts.append(f"## A call\n\n{markdown_table([('Adam, float32', 'a step'), *calls])}\n")
    if "threads" in pieces:
        rows = [("parameters", "1 thread", "2 threads", "1 thread / 2 threads")]
        for size, found in pieces["threads"]["sizes"].items():
            times = (duration(found["1 thread"]), duration(found["2 threads"]))
            rows.append((size, *times, f"{found['ratio']:.2f}"))
        parts.append(
            "## A second thread\n\nAn iteration of matrix products and a step, with the step on one thread and on two "
            f"whatever its size.\n\n{markdown_table(rows)}\n"
        )
    if "footprint" in pieces:
        found = pieces["footprint"]
        parts.append(
            f"## Footprint\n\n`import instep` takes {duration(found['import instep'])} beyond `import numpy` "
            f"({duration(found['import numpy'])}). The wheel has {found['wheel'] / 1e6:.2f} MB.\n"
        )
    return "\n".join(parts)
