"""What carries work out: Celery tasks, the node's agent, backends and probes."""
