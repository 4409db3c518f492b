"""``instep bench``; its timer, workloads and memory limit are also used by the repository's benchmarks."""
