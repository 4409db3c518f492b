"""``instep demo``: one network trained twice, with `instep.AdamW` and with AdamW in plain NumPy."""
