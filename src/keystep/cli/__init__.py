"""The `keystep` command, one file a subcommand.

Modules here import torch and everything built on it inside functions only, so that `--help` is instant.
"""
