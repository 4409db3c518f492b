"""The rules, one file a family, as in cpp/rules; docs/semantics.md has every formula, to the operation."""

from instep.rules.adabelief import AdaBelief
from instep.rules.adadelta import Adadelta
from instep.rules.adagrad import Adagrad
from instep.rules.adam import Adam, AdamW
from instep.rules.adamax import Adamax
from instep.rules.adan import Adan
from instep.rules.ademamix import AdEMAMix
from instep.rules.adopt import ADOPT
from instep.rules.asgd import ASGD
from instep.rules.ftrl import FTRL
from instep.rules.lamb import LAMB
from instep.rules.lars import LARS
from instep.rules.lion import Lion
from instep.rules.muon import Muon
from instep.rules.nadam import NAdam
from instep.rules.prodigy import Prodigy
from instep.rules.radam import RAdam
from instep.rules.rmsprop import RMSprop
from instep.rules.rprop import Rprop
from instep.rules.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from instep.rules.sgd import SGD, Momentum
from instep.rules.signum import Signum
from instep.rules.yogi import Yogi

__all__ = [
    "ADOPT",
    "ASGD",
    "FTRL",
    "LAMB",
    "LARS",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "Momentum",
    "Muon",
    "NAdam",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Signum",
    "Yogi",
]
