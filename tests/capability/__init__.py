"""What works with what: every method on every model, measured."""
