"""Data: how it is read, in which order, with which random numbers, and what happens when a worker dies.

``feed`` chooses how to read what it is given; ``split`` and ``Normalizer`` come before; ``sources`` has data to begin
with. An epoch's order is a function of (seed, epoch), a sample's random numbers are one of (seed, epoch, sample).
"""

from trueloop.data.arrays import ArrayFeed
from trueloop.data.cursor import Cursor, derive, order
from trueloop.data.device import batch_length, choose_device, first_tensor, move, pin
from trueloop.data.feed import Feed, feed
from trueloop.data.given import LoaderFeed
from trueloop.data.loader import WorkerFeed
from trueloop.data.sources import digits, fashion_mnist
from trueloop.data.split import Normalizer, split, split_indices
from trueloop.data.stream import StreamFeed

__all__ = [
    "ArrayFeed",
    "Cursor",
    "Feed",
    "LoaderFeed",
    "Normalizer",
    "StreamFeed",
    "WorkerFeed",
    "batch_length",
    "choose_device",
    "derive",
    "digits",
    "fashion_mnist",
    "feed",
    "first_tensor",
    "move",
    "order",
    "pin",
    "split",
    "split_indices",
]
