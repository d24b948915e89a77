"""WHAT runs: one file per engine and one line in ``registry.py``. Pure: nothing here starts a process."""
