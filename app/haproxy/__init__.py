"""Talking to an HAProxy: its runtime socket, and what it shows there. Knows nothing of replicas and routes."""
