"""The description of a rule by its class; groups, settings, states and torch's form need only this."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, NoReturn

from instep import _core
from instep._support import documentation
from instep.optimizers.hyperparameters import Hyperparameter, NumericOrNone, OneOf

__all__ = ["DECOUPLED_DECAY", "DECOUPLED_WEIGHT_DECAY", "InTorch", "Rule", "own_terms"]

DECOUPLED_WEIGHT_DECAY = "decoupled_weight_decay"  # the hyperparameter
DECOUPLED_DECAY = "decoupled_decay"  # the option of the core that it turns on


_RULES = _core.rules()  # asked once: it describes every rule anew


class InTorch(NamedTuple):
    """A rule as ``torch.optim`` has it, for `instep.interop`."""

    name: str  # of torch's class
    hyperparameters: tuple[str, ...]  # that both have, by instep's names
    known_by: tuple[str, ...]  # of these, the ones that groups of other rules lack
    own: Mapping[str, Any]  # other entries of torch's groups, at torch's defaults
    absent: Mapping[str, Any]  # hyperparameters that torch lacks, with the value they must have
    counts_steps: bool = True  # by parameter, as "step" in its state
    # States that torch makes with the optimizer, full of a hyperparameter; others come with a parameter's first step.
    starts: Mapping[str, str] = {}
    renamed: Mapping[str, str] = {}  # torch's name of a hyperparameter, where it is another
    none_is: Mapping[str, str] = {}  # what None means in torch's groups

    def name_of(self, hyperparameter: str) -> str:
        """Return torch's name of a hyperparameter."""
        return self.renamed.get(hyperparameter, hyperparameter)


class Rule:
    """The rule of a class of optimizers: its name in the core, its hyperparameters, its options."""

    __slots__ = ()

    _by_name: ClassVar[dict[str, type[Rule]]] = {}  # the first class of each of the core's rules
    _rule: ClassVar[str] = ""
    #: The name in stored states: the name of the class that sets _rule or _torch. A subclass, such
    #: as one with other defaults, has the same rule.
    _rule_name: ClassVar[str] = ""
    _torch: ClassVar[InTorch | None]  # each class sets its own; None: torch has no such rule
    _decoupled_decay: ClassVar[bool] = False  # always, without an option of the class
    # averaged() shows an average of the rule's own, so that there is none of ema_decay.
    _shows_iterate: ClassVar[bool] = False
    _no_decoupled_l1: ClassVar[str] = ""  # why the rule has none; empty: it has
    # Hyperparameters that all groups share, since the rule's sums are over all parameters; lr may be 0 in some.
    _alike: ClassVar[tuple[str, ...]] = ()
    _hyperparameters: ClassVar[dict[str, Hyperparameter[Any]]] = {}
    _fixed: ClassVar[tuple[str, ...]] = ()  # the hyperparameters with a part that can't be changed
    _core_hyperparameters: ClassVar[tuple[str, ...]] = ()
    _core_options: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls._rule:  # a base of rules
            return
        documentation.complete(cls)
        if {"_rule", "_torch"} & vars(cls).keys():
            cls._rule_name = cls.__name__
        rule = _RULES[cls._rule]
        cls._core_hyperparameters, cls._core_options = rule["hyperparameters"], rule["options"]
        cls._hyperparameters = {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, Hyperparameter)
        }
        cls._fixed = tuple(name for name, kind in cls._hyperparameters.items() if kind.is_fixed)
        cls._by_name.setdefault(cls._rule, cls)

    @classmethod
    def _refuse_without_rule(cls) -> NoReturn:
        """Raise TypeError for a class without a rule, and name instep's classes with a rule."""
        path = f"{cls.__module__}.{cls.__qualname__}"
        rules = ", ".join(dict.fromkeys(_rules_below(Rule)))
        do = "use" if cls.__module__ == "instep" else "derive it from"
        raise TypeError(f"{path} must have an update rule, got none; {do} one of {rules}")

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The core's options that are on: the hyperparameter of this name is a schedule, or isn't 0, False or None."""
        decoupled = cls._decoupled_decay or settings.get(DECOUPLED_WEIGHT_DECAY, False)
        values = {DECOUPLED_DECAY: decoupled, **settings}
        return tuple(n for n in cls._core_options if cls._is_on(n, values.get(n)))  # None: absent

    @classmethod
    def _is_on(cls, name: str, value: Any) -> bool:
        kind = cls._hyperparameters.get(name)
        if isinstance(kind, NumericOrNone):
            return value is not None
        if isinstance(kind, OneOf):
            return bool(value != kind.words[0])
        return callable(value) or bool(value)

    @classmethod
    def _absent(cls) -> dict[str, Any]:
        """Return the values of hyperparameters that stored states may lack."""
        known = cls._hyperparameters.items()
        return {n: kind.absent for n, kind in known if kind.absent is not NotImplemented}

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        """Return the names that a stored state of this rule may have, with the names of derived classes."""
        names = [base.__name__ for base in cls.__mro__]
        return tuple(names[: names.index(cls._rule_name) + 1])

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        """Raise ValueError if hyperparameters don't go together."""


def own_terms(rule: str, options: Collection[str]) -> set[str]:
    """Return which of weight_decay and l1 are numbers of this rule of the core, and no terms of the gradient."""
    known = _RULES[rule]
    own = {"weight_decay", "l1"}.intersection(known["hyperparameters"])
    if DECOUPLED_DECAY in known["options"] and DECOUPLED_DECAY not in options:
        own.discard("weight_decay")
    return own


def _rules_below(cls: type[Rule]) -> Iterator[str]:
    """Go through the names of instep's own classes of rules."""
    if cls._rule and cls.__module__ == "instep":
        yield cls.__name__
    for derived in cls.__subclasses__():
        yield from _rules_below(derived)
