"""The parts of this machine that steps may use, and the parts that they use."""
