"""WHERE it runs: one file per backend and one line in ``registry.py``."""
