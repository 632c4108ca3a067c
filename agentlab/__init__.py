"""agentlab discovers scaling laws that extrapolate, and plans the training runs that would test them."""

__version__ = "0.1.0"
