"""Class means of features: the prototypes of classifiers that are computed and not trained."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def class_sums(features: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """Sums (width, C) over the features (n, width) of each class, y (n,); in double precision."""
    return features.double().T @ F.one_hot(y, n_classes).double()


def class_means(features: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """Means (C, width) of the features (n, width) of each class, y (n,); 0 where it has none."""
    counts = y.bincount(minlength=n_classes).clamp_min(1)
    return (class_sums(features, y, n_classes) / counts).T.to(features.dtype)
