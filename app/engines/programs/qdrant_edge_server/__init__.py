"""Qdrant's own engine (the wheel ``qdrant-edge-py``) behind a part of Qdrant's REST API, on one thread, on disk."""
