"""Lists of prompts and seeds, as the command line takes them."""

from __future__ import annotations

from pathlib import Path


def read_prompts(path: Path) -> list[str]:
    """Read a text file with a prompt a line; empty lines and lines that begin with # are left out.

    Raises:
        ValueError: the file cannot be read, or holds no prompt or one twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--prompts: {path} cannot be read: {error}") from None
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise ValueError(f"--prompts: {path} holds no prompt; write one a line")
    twice = sorted({prompt for prompt in prompts if prompts.count(prompt) > 1})
    if twice:
        raise ValueError(f"--prompts: {path} holds {twice[0]!r} twice")
    return prompts


def parse_seeds(text: str) -> list[int]:
    """Read comma-separated seeds: `0,1,7`.

    Raises:
        ValueError: a part is no whole number from 0 up, or comes twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise ValueError(f"--seeds: given {text!r}, allowed: different whole numbers from 0 up, e.g. 0,1,2")
    return [int(part) for part in parts]
