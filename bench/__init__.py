"""Side-by-side measurements; run them as modules, e.g. `python -m bench.realised`."""
