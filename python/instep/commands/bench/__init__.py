"""``instep bench``, and what the benchmarks of the repository share with it: timer, workloads, memory limit."""
