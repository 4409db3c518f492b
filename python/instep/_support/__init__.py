"""For every part of the package: words of errors, docstrings, the dtype bfloat16."""
