"""What stands beside the gateway in its benchmark: other programs, each as its own documentation says to run it."""
