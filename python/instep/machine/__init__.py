"""The parts of this machine that steps may use, and those that they do use."""
