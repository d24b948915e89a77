"""The front door: from the route table to HAProxy's files and runtime commands, and the agent that keeps it so."""
