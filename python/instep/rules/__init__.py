"""The rules, one file a family, as in cpp/rules; docs/semantics.md has every formula, to the operation."""

from instep.rules.adam import Adam, AdamW
from instep.rules.rmsprop import RMSprop
from instep.rules.sgd import SGD, Momentum

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "RMSprop"]
