"""The embedded parts and the supervision of one stack: what `hostler up`, `down`, `status` and `doctor` do."""
