"""What backends can do, or declare that they lack, in the words that the database keeps of them."""

from __future__ import annotations

#: It runs ``argv``, so signals, output, exit codes and ports are a process's own.
RUNS_ARGV = "runs_argv"
#: Its program is started as it is: no init of a container stands between, whose session and umask it would have.
RUNS_BARE = "runs_bare"
#: What a program leaves behind may live on when it ended (in a container all ends with the first).
OUTLIVES_LEADER = "outlives_leader"
#: Output is kept by us, within its bound always the newest; a daemon that keeps it may drop all of it at once.
OWNS_OUTPUT = "owns_output"
#: One launch may run on several hosts.
SPANS_HOSTS = "spans_hosts"
