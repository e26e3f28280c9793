"""The lab: every method and its rivals in one process, under one protocol; `keystep bench` runs it."""
