"""Data to begin with: real, small, and found on the machine or fetched with a checksum."""

from trueloop.data.sources.digits import digits
from trueloop.data.sources.fashion_mnist import fashion_mnist

__all__ = ["digits", "fashion_mnist"]
