"""What a class of optimizers says of its rule; groups, settings and states ask for no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from instep.optimizers.hyperparameters import Hyperparameter

__all__ = ["Rule"]


class Rule:
    """The rule of a class of optimizers: its name in the core, its hyperparameters, its options."""

    __slots__ = ()

    _rule: ClassVar[str] = ""
    _decoupled_decay: ClassVar[bool] = (
        False  # weight_decay belongs to the rule, not to the gradient
    )
    _hyperparameters: ClassVar[dict[str, Hyperparameter[Any]]] = {}
    _core_hyperparameters: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Options of the core's rule that these hyperparameters switch on."""
        raise NotImplementedError

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        """Raise ValueError where hyperparameters don't go together."""
