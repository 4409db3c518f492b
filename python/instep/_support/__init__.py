"""What every part of the package needs: words of errors, docstrings, the dtype bfloat16."""
