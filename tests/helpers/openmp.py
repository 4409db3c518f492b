"""Whether this build has OpenMP, and how many CPUs there are for its threads."""

from __future__ import annotations

import pytest

import instep
from instep.machine.threads import available_cpus

HAS_OPENMP = instep.config()["openmp"]["version"] > 0
needs_openmp = pytest.mark.skipif(not HAS_OPENMP, reason="built without OpenMP")
CPUS = available_cpus()
