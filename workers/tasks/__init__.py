"""Load, act, apply: read in a short session, act without one, write guarded."""
