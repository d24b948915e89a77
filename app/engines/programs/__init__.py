"""What engines run. Each program stands alone: it is started by path, isolated, and imports nothing of Hostler."""
