"""A network that reads digits, trained by several processes: the same bits as one process.

    mpiexec -n 2 python -m mpi4py examples/digits_mpi.py
    python examples/digits_mpi.py

Each rank computes the gradients of its part of each batch, and `Distributed` takes the step
on all ranks together. One process accumulates the gradients of the same parts, in the same order
(`--parts 3` for what three ranks compute). Both print the same digest of the parameters. With
`--checkpoint FILE`, a run goes on where the last one was saved, on ranks or in one process.
"""

import hashlib
import os

import numpy as np
from picture import BLUE, ORANGE, command_line, picture
from threadpoolctl import threadpool_limits

import instep
import instep.checkpoint
import instep.mpi
from instep.commands.demo.digits import batches, load_digits
from instep.commands.demo.mlp import MLP

try:
    from mpi4py import MPI
except (ImportError, RuntimeError):  # without an MPI, this is the single process
    MPI = None

EPOCHS, BATCH = 12, 64
STEPS = EPOCHS * (1347 // BATCH)


def make_optimizer(params):
    settings = {
        "lr": instep.schedules.CosineDecay(5e-3, STEPS),
        "weight_decay": 0.1,
        "clip_norm": 1.0,
    }
    if size == 1:
        return instep.AdamW(params, **settings)
    return instep.mpi.Distributed(instep.AdamW, params, comm=MPI.COMM_WORLD, **settings)


def begin():
    """Return the first epoch: that after the last one in the checkpoint."""
    if not file:
        return 0
    if size > 1:
        return optimizer.load(file, default={"epoch": 0})["epoch"]
    return instep.checkpoint.load(file, optimizer)["epoch"] if os.path.exists(file) else 0


def save(epoch):
    """Save the state after an epoch."""
    if size > 1:
        optimizer.save(file, extra={"epoch": epoch + 1})
    else:
        instep.checkpoint.save(file, optimizer, extra={"epoch": epoch + 1})


def train(epoch):
    """Take the steps of an epoch; return the mean loss of this process's parts."""
    rng = np.random.default_rng([1, epoch])  # the same on all ranks
    losses = []
    for images, labels in batches(digits.train, BATCH, 0.2, rng):
        if len(labels) < BATCH:
            continue  # the last few images: of a smaller batch, some parts would be empty
        for k in mine:
            loss, gradients = network.loss_and_gradients(
                np.array_split(images, parts)[k], np.array_split(labels, parts)[k]
            )
            optimizer.accumulate(gradients)
            losses.append(loss)
        optimizer.step(grad_scale=1 / parts)
    return np.mean(losses)


arguments = command_line(
    __doc__,
    parts=(2, "of a batch, where one process has all (%(default)s)"),
    checkpoint=("", "the file of the run"),
    epochs=(EPOCHS, "after which to stop (%(default)s)"),
)
file = arguments.checkpoint
rank, size = (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size) if MPI else (0, 1)
parts = arguments.parts if size == 1 else size
mine = range(parts) if size == 1 else [rank]
threadpool_limits(1)  # NumPy's matrix products: one core a rank, and the same bits on all machines

digits = load_digits(np.random.default_rng(0))
network = MLP((64, 256, 128, 10), np.random.default_rng(0))
optimizer = make_optimizer(network.params)
losses, accuracies = [], []
first = begin()
for epoch in range(first, arguments.epochs):
    loss = train(epoch)
    if size > 1:
        loss = MPI.COMM_WORLD.allreduce(loss) / size
    if file:
        save(epoch)
    losses.append(loss)
    accuracies.append(100 * network.accuracy(*digits.test))
    if rank == 0 and epoch % 4 == 3:
        print(f"epoch {epoch + 1}: loss {loss:.4f}, {accuracies[-1]:.1f} % right", flush=True)

digest = hashlib.sha256(b"".join(array.tobytes() for array in network.params.values())).hexdigest()
if size > 1 and len(set(MPI.COMM_WORLD.allgather(digest))) > 1:
    raise SystemExit("the ranks ended with different parameters")
if rank == 0:
    print(f"{parts} parts, {size} process{'es' if size > 1 else ''}: parameters {digest[:32]}")
    if arguments.output:
        title = f"Handwritten digits, each batch in {parts} parts"
        with picture(arguments.output, title) as (left, right):
            epochs = range(first + 1, arguments.epochs + 1)
            left.plot(epochs, losses, color=BLUE, linewidth=3)
            left.set(title="Loss in training", xlabel="epoch", ylabel="cross-entropy", yscale="log")
            right.plot(epochs, accuracies, color=ORANGE, linewidth=3)
            right.set(title="Accuracy on held-out images", xlabel="epoch", ylabel="accuracy (%)")
