"""Any sequence of calls on any optimizer: after each, every bit is the reference's."""

from sequences import Sequences

TestSequences = Sequences.TestCase
