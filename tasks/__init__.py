"""The tasks that ship with agentlab: one folder each, data and words, no code."""
