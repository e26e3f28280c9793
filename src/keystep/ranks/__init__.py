"""One video on several processes: sequence parallelism, and one decision on all ranks.

The package is named for its ranks, for `keystep.parallel` is the function that users call.
"""
