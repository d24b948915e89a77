"""Talking to the hub that models come from, through ``huggingface_hub``: never longer, and never more, than allowed."""
