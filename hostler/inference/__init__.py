"""Inference over the Open Inference Protocol (V2), at servers that the capability registry names."""
