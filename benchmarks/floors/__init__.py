"""The least that the same work can cost with the same parts. Nothing of ours is in here but what is measured."""
