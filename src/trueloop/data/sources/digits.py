"""1,797 handwritten digits, 8 × 8 pixels, that come with scikit-learn.

Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49; scikit-learn ships its test part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trueloop.errors import MissingExtraError

CLASSES = tuple("0123456789")


def digits() -> tuple[Tensor, Tensor]:
    """Images float32 (1797, 1, 8, 8) in [0, 1], and labels int64 (1797,).

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> images, labels = digits()
        >>> images.shape, labels[:4].tolist()
        (torch.Size([1797, 1, 8, 8]), [0, 1, 2, 3])
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "digits") from error
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).to(torch.float32).view(-1, 1, 8, 8) / 16, torch.from_numpy(labels).to(torch.int64)
