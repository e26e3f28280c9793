"""The tensors of one generation: computed deltas by (rule, site, branch), counted in bytes."""

from __future__ import annotations

from collections import Counter

import torch

from keystep.how import Entry

Key = tuple[str, str, str]  # rule label, site name, branch


class Histories:
    """Entries oldest first. Bytes are counted by storage: a view counts the whole storage it keeps alive,
    once.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, list[Entry]] = {}
        self._users: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}
        self.num_bytes = 0
        self.peak_bytes = 0

    def get(self, key: Key) -> list[Entry]:
        """The entries of a key; empty if there are none."""
        return self._entries.get(key, [])

    def push(self, key: Key, entry: Entry, num_kept: int) -> None:
        """Append an entry and keep the newest `num_kept`."""
        self._entries.setdefault(key, []).append(entry)
        for value in entry.values:
            self._hold(value)
        self.trim(key, num_kept)

    def trim(self, key: Key, num_kept: int) -> None:
        """Drop all but the newest `num_kept` entries of a key."""
        entries = self._entries.get(key, [])
        while len(entries) > num_kept:
            for value in entries.pop(0).values:
                self._release(value)
        if not entries:
            self._entries.pop(key, None)

    def trim_rule(self, rule: str, branch: str, num_kept: int) -> None:
        """`trim` every site of one rule and branch."""
        for key in [key for key in self._entries if (key[0], key[2]) == (rule, branch)]:
            self.trim(key, num_kept)

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self._users.clear()
        self._sizes.clear()
        self.num_bytes = 0

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        pointer = storage._cdata  # the data pointer is 0 on the meta device
        self._users[pointer] += 1
        if self._users[pointer] == 1:
            self._sizes[pointer] = storage.nbytes()
            self.num_bytes += self._sizes[pointer]
            self.peak_bytes = max(self.peak_bytes, self.num_bytes)

    def _release(self, tensor: torch.Tensor) -> None:
        pointer = tensor.untyped_storage()._cdata
        self._users[pointer] -= 1
        if self._users[pointer] == 0:
            del self._users[pointer]
            self.num_bytes -= self._sizes.pop(pointer)
