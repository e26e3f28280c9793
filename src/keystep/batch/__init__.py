"""Many items on several workers: none lost, none made twice, whatever dies meanwhile.

One process, the caller's, owns the queue, the manifest and all files. Workers only compute: a worker gets an
item, sends back a finished video, and knows nothing of the disk. Where workers live (processes of this
machine, actors of a Ray cluster) is behind `Workers`; everything else is one code for both.
"""

from keystep.batch.item import Figures, Item, Product, Record
from keystep.batch.local import LocalWorkers
from keystep.batch.manifest import Manifest
from keystep.batch.queue import Backoff, Queue
from keystep.batch.reading import Reading, read_items
from keystep.batch.run import Watcher, run_batch
from keystep.batch.workers import Job, Workers

__all__ = [
    "Backoff",
    "Figures",
    "Item",
    "Job",
    "LocalWorkers",
    "Manifest",
    "Product",
    "Queue",
    "Reading",
    "Record",
    "Watcher",
    "Workers",
    "read_items",
    "run_batch",
]
