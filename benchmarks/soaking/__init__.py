"""The parts of the soak: what it does to a stack (``churn``), what it looks at (``sampling``), what that means."""
