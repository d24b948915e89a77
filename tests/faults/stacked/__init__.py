"""Faults of the parts of a whole stack, which one `hostler up` started for all tests here."""
