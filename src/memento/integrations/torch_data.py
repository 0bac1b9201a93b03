"""PyTorch: a dataset over a memory, for ``DataLoader``; see `memento.integrations.torch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memento.errors import SchemaError, needs
from memento.samples import Samples

__all__ = ["MemoryDataset", "import_torch"]


def import_torch(purpose: str) -> Any:
    """PyTorch, or what to install."""
    with needs("torch", "torch", purpose):
        import torch
    return torch


try:
    import torch
    from torch.utils.data import Dataset as _Dataset
    from torch.utils.data._utils.collate import default_collate_fn_map as _collators
except ImportError:  # said when a dataset is made
    _Dataset, _collators = object, {}  # type: ignore[assignment, misc]


class MemoryDataset(_Dataset):  # type: ignore[type-arg]
    """A map-style dataset over a memory's content (or any samples), for ``DataLoader``.

    Holds the content as it is now; later inserts do not reach it. Columns that tensors cannot hold,
    such as texts and dates, are passed on as numpy has them. A ``DataLoader`` gets whole batches at
    once, about as fast as tensors are indexed.

    Args:
        data: A memory, samples, or anything samples are made from.
        columns: Which columns make an item, a tuple in this order. If left out, an item is a dict
            of all columns; but where there are both ``x`` and ``y_bin``, it is still the tuple of
            these two, as programs of before expect.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SchemaError: A column is missing, or there are no samples at all.

    Example:
        >>> dataset = MemoryDataset({"x": [[0.5], [1.5]], "y": [0, 1], "name": ["a", "b"]})
        >>> len(dataset), dataset[1]["x"], dataset[:]["y"]
        (2, tensor([1.5000], dtype=torch.float64), tensor([0, 1]))
        >>> MemoryDataset({"x": [[0.5], [1.5]], "y": [0, 1]}, ("x", "y"))[0]
        (tensor([0.5000], dtype=torch.float64), tensor(0))
    """

    def __init__(self, data: Any, columns: Sequence[str] | None = None) -> None:
        import_torch("MemoryDataset")
        samples = Samples.borrow(getattr(data, "samples", data))
        if not samples:
            raise SchemaError("there are no samples, and so no columns; insert some first")
        if columns is None and "x" in samples and "y_bin" in samples:
            columns = ("x", "y_bin")
        absent = [name for name in columns or () if name not in samples]
        if absent:
            raise SchemaError(f"no columns {absent} among {sorted(samples)}")
        self._names = list(samples if columns is None else columns)
        self._named = columns is None
        self._columns = [_tensor_of(samples[name]) for name in self._names]
        self._size = samples.size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: Any) -> Any:
        """A row by its number; several rows, as whole columns, by a slice or a list."""
        if isinstance(rows, (int, np.integer)) and not -self._size <= rows < self._size:
            raise IndexError(f"row {rows} of {self._size}")
        parts = [column[rows] for column in self._columns]
        return dict(zip(self._names, parts, strict=True)) if self._named else tuple(parts)

    def __getitems__(self, rows: Sequence[int]) -> _Batch:
        """Several items at once; ``DataLoader`` asks for a batch this way."""
        return _Batch(self, rows)

    @staticmethod
    def collate(batch: Sequence[Any]) -> Any:
        """Items as one batch, for ``DataLoader(..., collate_fn=MemoryDataset.collate)``.

        Needed only where items come one by one and have columns that tensors cannot hold: of
        ``dataset + dataset``, say. Tensors are stacked, other columns become arrays.
        """
        if isinstance(batch, _Batch):
            return batch.whole()
        if isinstance(batch[0], dict):
            return {name: _stacked([item[name] for item in batch]) for name in batch[0]}
        return [_stacked(parts) for parts in zip(*batch, strict=True)]


class _TupleItem(tuple[Any, ...]):
    """An item of a batch, by which torch finds who puts the batch together."""


class _DictItem(dict[str, Any]):
    """The same, of all columns by name."""


class _Batch(Sequence[Any]):
    """Some rows of a dataset: a list of items for those who want one, and else whole columns."""

    def __init__(self, dataset: MemoryDataset, rows: Sequence[int]) -> None:
        self._dataset, self._rows = dataset, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return _Batch(self._dataset, self._rows[i])
        item = self._dataset[self._rows[i]]
        return _DictItem(item) if isinstance(item, dict) else _TupleItem(item)

    def whole(self) -> Any:
        """All columns; in a list if items are tuples, as torch's own batches are."""
        parts = self._dataset[np.asarray(self._rows, np.int64)]
        return parts if isinstance(parts, dict) else list(parts)


def _collated(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    return MemoryDataset.collate(batch)


_collators.update({_TupleItem: _collated, _DictItem: _collated})


def _tensor_of(column: np.ndarray) -> Any:
    """A copy, as torch has no read-only tensors; an array of numpy where torch lacks the type."""
    column = column.astype(column.dtype.newbyteorder("="))
    try:
        return torch.from_numpy(column)
    except TypeError:
        return column


def _stacked(values: Sequence[Any]) -> Any:
    return torch.stack(list(values)) if isinstance(values[0], torch.Tensor) else np.stack(values)
