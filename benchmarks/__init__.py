"""Numbers we answer for: each benchmark runs ours and its floor alternately, on one machine, in one run."""
