"""A machine for hypothesis: any sequence of calls on an optimizer; after each, every bit is the reference's."""

from __future__ import annotations

import copy
import math
import pickle
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import THREADS
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reference import assert_same_bits
from snapshots import bits
from strategies import (
    accepts,
    ever,
    gradients,
    limits,
    replacing,
    scales,
    scheduled_numbers,
    setups,
)
from twins import Twins

import instep
from instep import _core, checkpoint

REFUSED = (TypeError, ValueError)
NUMBERS_OF_NO_SCALE = st.sampled_from([0.0, -1.0, math.nan, math.inf, "1", True])


def misaligned(grad: np.ndarray) -> np.ndarray:
    raw = np.zeros(grad.nbytes + 1, np.uint8)[1:]
    return raw.view(grad.dtype).reshape(grad.shape)


#: From a good gradient and the arrays in use, a bad one; None where there is no such.
SPOILT: dict[str, Any] = {
    "longer": lambda grad, used: np.zeros((*grad.shape, 2)),
    "of integers": lambda grad, used: grad.astype(np.int32) if grad.ndim else None,
    "of strings": lambda grad, used: np.full(grad.shape, "1"),
    "a list": lambda grad, used: grad.tolist() if grad.ndim else None,
    "byte-swapped": lambda grad, used: np.zeros(grad.shape, np.dtype("f4").newbyteorder()),
    "misaligned": lambda grad, used: misaligned(grad) if grad.size else None,
    "one of the optimizer's": lambda grad, used: used if used.size else None,
    "a part of it": lambda grad, used: used[...].view() if used.size else None,
}


class Sequences(RuleBasedStateMachine):
    """Twins through whatever may be called, in any order."""

    twins: Twins

    @initialize(setup=setups())
    def make(self, setup: Any) -> None:
        self.twins = Twins(setup)

    @property
    def optimizer(self) -> Any:
        return self.twins.optimizer

    # ---- stepping ------------------------------------------------------------------------------

    @rule(level=st.sampled_from(instep.isa_levels()), threads=st.sampled_from(THREADS))
    def use(self, level: str, threads: int) -> None:
        _core.testing.set_least_work(1)  # parallel from one chunk a thread on
        instep.set_isa(level)
        instep.set_num_threads(threads)

    @rule(data=st.data(), scale=scales)
    def step(self, data: Any, scale: float) -> None:
        self.twins.step(data.draw(gradients(self.twins.setup)), scale)

    @rule(scale=scales)
    def step_with_what_was_accumulated(self, scale: float) -> None:
        if self.twins.reference.accumulated:
            self.twins.step(None, scale)
        else:
            self.twins.refused(ValueError, grad_scale=scale)

    @rule(data=st.data())
    def accumulate(self, data: Any) -> None:
        self.twins.accumulate(data.draw(gradients(self.twins.setup)))

    @rule()
    def discard(self) -> None:
        self.optimizer.discard_accumulated()
        self.twins.reference.accumulated = {}

    # ---- refusals ------------------------------------------------------------------------------

    @rule(data=st.data(), how=st.sampled_from(sorted(SPOILT)), accumulating=st.booleans())
    def refuse_a_gradient(self, data: Any, how: str, accumulating: bool) -> None:
        twins, optimizer = self.twins, self.optimizer
        grads = data.draw(gradients(twins.setup))
        name = data.draw(st.sampled_from(sorted(grads)))
        in_use = [optimizer.params[name], *optimizer.state[name].values()]
        in_use += [a[name] for a in (optimizer.averages, optimizer.accumulated) if name in a]
        good = np.zeros(optimizer.params[name].shape)
        bad = SPOILT[how](good, data.draw(st.sampled_from(in_use)))
        if bad is None:
            return
        given = twins.setup.contain({**grads, name: bad})
        if accumulating:
            before = bits(optimizer)
            with pytest.raises(REFUSED):
                optimizer.accumulate(given)
            assert bits(optimizer) == before
        else:
            twins.refused(REFUSED, given)

    @rule(data=st.data(), scale=NUMBERS_OF_NO_SCALE)
    def refuse_a_scale(self, data: Any, scale: Any) -> None:
        grads = data.draw(gradients(self.twins.setup))
        self.twins.refused(REFUSED, self.twins.setup.contain(grads), grad_scale=scale)

    @rule(other=st.sampled_from([None, 1, {}, [], (), [[], []], {"another": None}]))
    def refuse_a_container(self, other: Any) -> None:
        setup = self.twins.setup
        if not setup.grouped and setup.groups[0].kind == "array":
            return  # there anything may be a gradient, None among them
        self.twins.refused(REFUSED, other)

    # ---- settings ------------------------------------------------------------------------------

    @rule(data=st.data())
    def set_a_hyperparameter(self, data: Any) -> None:
        k = data.draw(st.integers(0, len(self.optimizer.param_groups) - 1))
        group, name, value = self.drawn_setting(data, k)
        before = bits(self.optimizer)
        try:
            group[name] = value
        except REFUSED:
            assert bits(self.optimizer) == before
        else:
            self.have_set(k, name, value)

    @rule(data=st.data())
    def set_it_in_all_groups(self, data: Any) -> None:
        _, name, value = self.drawn_setting(data, 0)
        before = bits(self.optimizer)
        try:
            setattr(self.optimizer, name, value)
        except REFUSED:
            assert bits(self.optimizer) == before
        else:
            for k in range(len(self.twins.setup.groups)):
                self.have_set(k, name, value)

    def drawn_setting(self, data: Any, k: int) -> tuple[Any, str, Any]:
        """A group, a hyperparameter, a value for it; a schedule only where the group takes all of its values."""
        group = self.optimizer.param_groups[k]
        settings = {name: group[name] for name in group if name not in ("params", "state_dtype")}
        name = data.draw(st.sampled_from(sorted(settings)))
        variant = self.twins.setup.variant
        value = data.draw(replacing(variant, name, settings[name]))
        if any(not accepts(variant, {**settings, name: v}) for v in ever(value)):
            value = settings[name]
        return group, name, value

    def have_set(self, k: int, name: str, value: Any) -> None:
        setup, options = self.twins.setup, self.twins.reference.options
        setup.groups[k].settings = {**setup.groups[k].settings, name: value}
        for param in setup.groups[k].names:
            options[param] = {**options[param], name: value}

    @rule(limit=st.none() | st.just(math.inf) | limits | scheduled_numbers(limits))
    def set_clip_norm(self, limit: Any) -> None:
        self.optimizer.clip_norm = limit
        self.twins.reference.clip_norm = limit
        self.twins.setup.extras["clip_norm"] = limit

    @rule(data=st.data(), bad=st.sampled_from([-1.0, math.nan, "1", None]))
    def refuse_what_a_schedule_gives(self, data: Any, bad: Any) -> None:
        group = data.draw(st.sampled_from(self.optimizer.param_groups))
        if "lr" in self.optimizer._alike and len(self.optimizer.param_groups) > 1:
            return  # a group alone takes no other rate
        grads = self.twins.setup.contain(data.draw(gradients(self.twins.setup)))
        rate = group["lr"]
        group["lr"] = lambda step: bad
        self.twins.refused(REFUSED, grads)
        group["lr"] = rate

    # ---- averages ------------------------------------------------------------------------------

    @rule(fails=st.booleans())
    def put_the_averages_in(self, fails: bool) -> None:
        optimizer, reference = self.optimizer, self.twins.reference
        averages = reference.shown()
        if not averages:
            with (
                pytest.raises(ValueError, match=r"ema_decay must be .* for averages, got None"),
                optimizer.averaged(),
            ):
                pass
            return
        before = {name: p.copy() for name, p in optimizer.params.items()}
        with suppress(KeyError), optimizer.averaged():
            for name, p in optimizer.params.items():
                assert_same_bits(p, averages[name], name)
            self.twins.refused(RuntimeError, None)
            if fails:
                raise KeyError
        for name, p in optimizer.params.items():
            assert_same_bits(p, before[name], name)

    # ---- saving --------------------------------------------------------------------------------

    def made_anew(self) -> Any:
        """Another optimizer of the same kind, for arrays of its own, in no particular state, with another seed."""
        setup = copy.copy(self.twins.setup)
        setup.extras = {**setup.extras, "seed": 7}
        params = {name: np.ones_like(p) for name, p in self.optimizer.params.items()}
        copies = {
            name: c if c is None else np.ones_like(c) for name, c in self.twins.copies.items()
        }
        return setup.optimizer(params, copies)

    @rule(stepped=st.booleans())
    def load_the_state(self, stepped: bool) -> None:
        other = self.made_anew()
        if stepped:
            ones = {name: np.ones(p.shape) for name, p in other.params.items()}
            other.accumulate(self.twins.setup.contain(ones))
        for name, p in other.params.items():
            p[...] = self.optimizer.params[name]
        other.load_state_dict(self.optimizer.state_dict())
        self.twins.go_on_with(other)

    @rule(how=st.sampled_from([copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))]))
    def copy_it(self, how: Any) -> None:
        before = bits(self.optimizer)
        other = how(self.optimizer)
        assert bits(self.optimizer) == before
        self.twins.go_on_with(other)

    @rule()
    def load_a_checkpoint(self) -> None:
        other = self.made_anew()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "run.safetensors")
            checkpoint.save(path, self.optimizer, extra=[1])
            assert checkpoint.load(path, other) == [1]
        self.twins.go_on_with(other)

    @rule(data=st.data())
    def refuse_a_state(self, data: Any) -> None:
        """One that lacks something, at any depth."""
        state = tree = self.optimizer.state_dict()
        key = data.draw(st.sampled_from(sorted(tree)))
        while (
            key != "accumulated"  # which may have any of the parameters
            and isinstance(tree[key], dict)
            and tree[key]
            and data.draw(st.booleans())
        ):
            tree = tree[key]
            key = data.draw(st.sampled_from(sorted(tree)))
        if key == "remainder":  # it is 0 then
            return
        del tree[key]
        before = bits(self.optimizer)
        with pytest.raises(REFUSED):
            self.optimizer.load_state_dict(state)
        assert bits(self.optimizer) == before

    @invariant()
    def the_bits_are_the_same(self) -> None:
        if hasattr(self, "twins"):
            self.twins.check()
