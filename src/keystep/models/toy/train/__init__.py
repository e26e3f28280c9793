"""How the shipped weights were made: optimiser, objectives, loop, evaluation. Not needed for inference."""
