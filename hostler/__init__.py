"""What a user imports and types. Speaks HTTP only."""

__version__ = "0.1.0"
