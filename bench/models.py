"""The models of the benchmarks in PyTorch: the shapes of their parameters, and the models themselves."""

from __future__ import annotations

from typing import Any

from package import workloads

OBSERVATION, ACTIONS = 4, 2  # CartPole's
WIDTH, HEADS, LAYERS, CONTEXT, VOCABULARY = 64, 4, 13, 32, 256  # of the transformer
MATRICES = ", matrices"  # after a model's name: its parameters that have two axes

Shape = workloads.Shape


def _actor_critic() -> list[Shape]:
    def net(outputs: int) -> list[Shape]:
        return [(64, OBSERVATION), (64,), (64, 64), (64,), (outputs, 64), (outputs,)]

    return [*net(ACTIONS), *net(1)]


def _transformer() -> list[Shape]:
    """160 tensors; the output layer is the embedding."""
    norm: list[Shape] = [(WIDTH,), (WIDTH,)]
    block = [
        *norm,
        *((3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,)),
        *norm,
        *((4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), (WIDTH,)),
    ]
    return [(VOCABULARY, WIDTH), (CONTEXT, WIDTH), *(block * LAYERS), *norm]


SHAPES = {"actor-critic": _actor_critic(), "transformer-160": _transformer()}
SHAPES |= {name + MATRICES: [s for s in shapes if len(s) == 2] for name, shapes in SHAPES.items()}


def make(name: str) -> Any:
    """A model, with the same weights every time; called with a batch, it returns the loss."""
    import torch  # noqa: PLC0415 - the shapes are asked for where there is no PyTorch

    torch.manual_seed(0)
    return {"actor-critic": _ActorCritic, "transformer-160": _Transformer}[name](torch)


class _ActorCritic:
    """Two perceptrons with the loss of an actor-critic, as for CartPole."""

    def __init__(self, torch: Any) -> None:
        nn = torch.nn

        def net(outputs: int) -> Any:
            hidden = nn.Linear(OBSERVATION, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()
            return nn.Sequential(*hidden, nn.Linear(64, outputs))

        self._torch = torch
        self.module = nn.ModuleList([net(ACTIONS), net(1)])

    def batch(self, size: int) -> Any:
        torch = self._torch
        seen, action = torch.randn(size, OBSERVATION), torch.randint(ACTIONS, (size, 1))
        return seen, action, torch.randn(size), torch.randn(size)

    def loss(self, batch: Any) -> Any:
        seen, action, advantage, reward = batch
        actor, critic = self.module
        log_policy = actor(seen).log_softmax(-1).gather(1, action).squeeze(1)
        error = critic(seen).squeeze(1) - reward
        return 0.5 * (error * error).mean() - (log_policy * advantage).mean()


class _Transformer:
    """A language model of characters: blocks with the norm ahead, as GPT-2's."""

    def __init__(self, torch: Any) -> None:
        nn = torch.nn
        self._torch = torch
        blocks = [
            nn.ModuleList(
                [
                    nn.LayerNorm(WIDTH),
                    nn.Linear(WIDTH, 3 * WIDTH),
                    nn.Linear(WIDTH, WIDTH),
                    nn.LayerNorm(WIDTH),
                    nn.Linear(WIDTH, 4 * WIDTH),
                    nn.Linear(4 * WIDTH, WIDTH),
                ]
            )
            for _ in range(LAYERS)
        ]
        embeddings = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.02)
        self.module = nn.ModuleList([*embeddings, *blocks, nn.LayerNorm(WIDTH)])

    def batch(self, size: int) -> Any:
        return self._torch.randint(VOCABULARY, (size, CONTEXT + 1))

    def loss(self, batch: Any) -> Any:
        functional = self._torch.nn.functional
        letters, places, *blocks, last = self.module
        x = letters(batch[:, :-1]) + places.weight
        for norm, to_heads, from_heads, second_norm, up, down in blocks:
            heads = to_heads(norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + from_heads(mixed.transpose(1, 2).flatten(2))
            x = x + down(functional.gelu(up(second_norm(x))))
        scores = functional.linear(last(x), letters.weight)
        return functional.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten())
