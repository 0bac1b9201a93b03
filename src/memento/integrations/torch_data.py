"""PyTorch: a dataset over a memory, for ``DataLoader``; see `memento.integrations.torch`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento import arguments, snapshot
from memento.errors import DomainError, RowError, SchemaError, SettingError, StorageError, needs
from memento.files import local_path
from memento.memory import Memory
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
    from torch.utils.data import WeightedRandomSampler, default_collate
    from torch.utils.data._utils.collate import default_collate_fn_map as _collators
except ImportError:  # said when a dataset is made
    _Dataset, _collators = object, {}  # type: ignore[assignment, misc]


# What an item's weight is called; the most rows that torch.multinomial draws from.
_WEIGHT = "weight"
_MOST = 2**24


class MemoryDataset(_Dataset):  # type: ignore[type-arg]
    """A map-style dataset over a memory's content (or any samples), for ``DataLoader``.

    Holds the content as it is now; later inserts do not reach it. Columns that tensors cannot hold,
    such as texts and dates, are passed on as numpy has them. A ``DataLoader`` gets whole batches at
    once, about as fast as tensors are indexed.

    Args:
        data: A memory, samples, anything samples are made from; or the folder of a saved memory,
            of which rows are read when they are asked for. Pickled, such a dataset is the folder's
            name: workers of a ``DataLoader`` open it again.
        columns: Which columns make an item, a tuple in this order. If left out, an item is a dict
            of all columns; but where there are both ``x`` and ``y_bin``, it is still the tuple of
            these two, as programs of before expect.
        weights: Whether items have a weight, that of `Memory.weights`; or ``(n,)`` weights of your
            own. It is ``"weight"`` in a dict, the last element of a tuple, and float32 in both.
        transform: A function of an item, called for each; what it gives stands in its place. What
            can be done to a whole batch is done faster to the batches that the loader gives.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SchemaError: A column is missing, or there are no samples at all; weights are not ``(n,)``
            numbers, or would hide a column.
        DomainError: Weights are negative, infinite or NaN.
        SettingError: ``weights=True``, and none are known; or the policy of a folder is unknown.
        StorageError: The folder cannot be read; or, where a worker opens it again, was saved to
            since.

    Example:
        >>> dataset = MemoryDataset({"x": [[0.5], [1.5]], "y": [0, 1], "name": ["a", "b"]})
        >>> len(dataset), dataset[1]["x"], dataset[:]["y"]
        (2, tensor([1.5000], dtype=torch.float64), tensor([0, 1]))
        >>> MemoryDataset({"x": [[0.5], [1.5]], "y": [0, 1]}, ("x", "y"), weights=[1, 3])[1]
        (tensor([1.5000], dtype=torch.float64), tensor(1), tensor(3.))
    """

    def __init__(
        self,
        data: Any,
        columns: Sequence[str] | None = None,
        *,
        weights: Any = False,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        import_torch("MemoryDataset")
        named = isinstance(data, (str, os.PathLike))
        self._folder = local_path(data).absolute() if named else None
        self._transform = transform
        if self._folder is None:
            held = getattr(data, "samples", None)  # a table may have a column of that name
            of_memory = isinstance(held, Samples)
            samples = held if of_memory else Samples.borrow(data)
            self._weights = getattr(data, "weights", None) if of_memory else None
        else:
            found = _read(self._folder)
            self._generation, samples, self._weights = found.generation, _columns(found), None
        if not samples:
            raise SchemaError("there are no samples, and so no columns; insert some first")
        if columns is None and "x" in samples and "y_bin" in samples:
            columns = ("x", "y_bin")
        if columns is not None:
            columns = arguments.names("columns", columns)
        absent = [name for name in columns or () if name not in samples]
        if absent:
            raise SchemaError(f"no columns {absent} among {sorted(samples)}")
        self._names = list(samples if columns is None else columns)
        self._named = columns is None
        self._size = samples.size
        self._weighted = weights is not False
        if not isinstance(weights, bool):
            self._weights = _checked_weights(weights, self._size)
        if self._weighted and self._named and _WEIGHT in samples:
            raise SchemaError(
                f"there is a column {_WEIGHT!r} already, which weights would hide; "
                "name the columns that you need, or leave weights out"
            )
        self._hold(samples)

    @property
    def weights(self) -> np.ndarray:
        """``(n,)`` float64 weights: those that were given, and otherwise the memory's.

        Raises:
            SettingError: None are known.
        """
        weights = self._weights
        if weights is None and self._folder is not None:
            # The policy says them, so it is made; a dataset without weights can do without.
            found = _read(self._folder, verify=False, expected=self._generation)
            try:
                memory = Memory.restore(found.arrays, found.documents, scratch=self._folder)
            except SettingError as error:
                raise SettingError(
                    f"the policy of {self._folder} cannot be made anew ({error}); give "
                    "weights=Memory.load(folder, policy).weights"
                ) from error
            weights = memory.weights
        if weights is None:
            raise SettingError(
                "no weights are known: the policy states none, or these are samples without a "
                "memory; give MemoryDataset(..., weights=...) your own"
            )
        return weights

    def sampler(self, size: int | None = None, *, generator: Any = None) -> Any:
        """Draws rows in proportion to the weights, for ``DataLoader(..., sampler=...)``.

        The weights of a memory undo its choice: batches look like the stream, not like what is
        held. Then leave the weights out of the loss.

        Args:
            size: Rows an epoch; as many as there are if left out. A row may come several times.
            generator: A ``torch.Generator``; if left out, PyTorch's own.

        Returns:
            A ``torch.utils.data.WeightedRandomSampler``.

        Raises:
            SettingError: There are no weights above 0, no rows, or more than PyTorch can draw from.
        """
        if not 0 < self._size <= _MOST:
            raise SettingError(
                f"{self._size:,} rows to draw from; PyTorch draws from 1 to {_MOST:,}"
            )
        size = self._size if size is None else size
        arguments.require("size", size, arguments.whole())
        weights: Any = torch.from_numpy(self.weights.copy())
        if not weights.any():
            raise SettingError("all weights are 0; give at least one row a weight above 0")
        return WeightedRandomSampler(weights, size, generator=generator)

    def _hold(self, samples: Samples) -> None:
        """Take the columns: as tensors, but what is in a folder as it lies there."""
        columns = [samples[name] for name in self._names]
        self._columns = columns if self._folder else [_tensor_of(column) for column in columns]
        if self._weighted:
            self._columns.append(_tensor_of(self.weights.astype(np.float32)))

    def __getstate__(self) -> dict[str, Any]:
        left_out = "_columns" if self._folder else None
        return {name: value for name, value in vars(self).items() if name != left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._folder is not None:
            self._hold(_columns(_read(self._folder, verify=False, expected=self._generation)))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: Any) -> Any:
        """A row by its number; several rows, as whole columns, by a slice, a list or a mask.

        Raises:
            RowError: There are no such rows; also an ``IndexError``.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self._size))
        rows = _checked_rows(rows, self._size)
        return self._whole(rows) if rows.ndim else self._item(int(rows))

    def _item(self, row: int) -> Any:
        if not -self._size <= row < self._size:
            raise RowError(f"row {row} of {self._size}; count from 0, or from -1 backwards")
        item = self._put_together([_part(column, row) for column in self._columns])
        return item if self._transform is None else self._transform(item)

    def _whole(self, rows: np.ndarray) -> Any:
        """Several rows as one, with columns that are as long."""
        if self._transform is not None:
            return self.collate([self._item(row) for row in rows.tolist()])
        # numpy's `take` is several times as fast as indexing, in numpy and in torch; it finds what
        # is out of range on the way.
        try:
            parts = [np.asarray(column).take(rows, 0) for column in self._columns]
        except IndexError:
            asked = f"rows from {rows.min()} to {rows.max()} of {self._size}"
            raise RowError(f"{asked}; count from 0, or from -1 backwards") from None
        return self._put_together([_tensor(part) for part in parts])

    def _put_together(self, parts: list[Any]) -> Any:
        if not self._named:
            return tuple(parts)
        return dict(zip([*self._names, _WEIGHT], parts, strict=False))

    def __getitems__(self, rows: Sequence[int]) -> Sequence[Any]:
        """Several items at once; ``DataLoader`` asks for a batch this way."""
        if self._transform is None:
            return _Batch(self, rows)
        return [_as_item(self._item(row)) for row in rows]

    @staticmethod
    def collate(batch: Sequence[Any]) -> Any:
        """Items as one batch, for ``DataLoader(..., collate_fn=MemoryDataset.collate)``.

        Needed only where items come one by one and have columns that tensors cannot hold: of
        ``dataset + dataset``, say. Tensors are stacked, other columns become arrays, and what a
        transform made is put together as PyTorch does it.
        """
        if isinstance(batch, _Batch):
            return batch.whole()
        arguments.require("batch", batch, arguments.instance((list, tuple), "a list of items"))
        if not batch:
            raise SettingError("a batch of no items; give at least one")
        if isinstance(batch[0], dict):
            return {name: _stacked([item[name] for item in batch]) for name in batch[0]}
        if isinstance(batch[0], tuple):
            return [_stacked(parts) for parts in zip(*batch, strict=True)]
        return _stacked(batch)


class _TupleItem(tuple[Any, ...]):
    """An item of a batch, by which torch finds who puts the batch together."""


class _DictItem(dict[str, Any]):
    """The same, of all columns by name."""


def _as_item(item: Any) -> Any:
    """An item that torch leaves to us, unless a transform made something of its own of it."""
    if type(item) is dict:
        return _DictItem(item)
    return _TupleItem(item) if type(item) is tuple else item


class _Batch(Sequence[Any]):
    """Some rows of a dataset: a list of items for those who want one, and else whole columns."""

    def __init__(self, dataset: MemoryDataset, rows: Sequence[int]) -> None:
        self._dataset, self._rows = dataset, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return _Batch(self._dataset, self._rows[i])
        return _as_item(self._dataset[self._rows[i]])

    def whole(self) -> Any:
        """All columns; in a list if items are tuples, as torch's own batches are."""
        parts = self._dataset[np.asarray(self._rows, np.int64)]
        return list(parts) if isinstance(parts, tuple) else parts


def _collated(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    return MemoryDataset.collate(batch)


_collators.update({_TupleItem: _collated, _DictItem: _collated})


def _read(folder: Path, *, verify: bool = True, expected: int | None = None) -> snapshot.Snapshot:
    """A saved memory, of which columns stay on the disk; of the generation that is expected."""
    found = snapshot.read(folder, "memento-memory", mapped=True, verify=verify)
    if expected not in (None, found.generation):
        raise StorageError(
            f"{folder} holds generation {found.generation}, the dataset was made of {expected}; "
            "make it again after the memory was saved"
        )
    return found


def _columns(found: snapshot.Snapshot) -> Samples:
    return Samples.borrow(snapshot.with_prefix(found.arrays, "column/"))


def _checked_weights(weights: Any, size: int) -> np.ndarray:
    """Weights of the caller's as float64, copied."""
    made = np.array(Samples.borrow(weights=weights)["weights"])
    if made.shape != (size,) or made.dtype.kind not in "biuf":
        raise SchemaError(
            f"weights of type {made.dtype} and shape {made.shape}; give {size:,} numbers, one a row"
        )
    made = made.astype(np.float64)
    if not np.isfinite(made).all() or (made < 0).any():
        raise DomainError("weights hold NaN, infinite or negative values; give finite ones from 0")
    return made


def _checked_rows(rows: Any, size: int) -> np.ndarray:
    """Row numbers of a list or a mask, or the one without axes, if they are there or not."""
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (size,):
        return np.flatnonzero(rows)
    if rows.ndim > 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise RowError(
            f"rows of type {rows.dtype} and shape {rows.shape}; give a number, a slice, a list of "
            f"row numbers, or a mask of shape ({size},)"
        )
    return rows.astype(np.int64, copy=False)


def _part(column: Any, row: int) -> Any:
    """One row of a column."""
    if isinstance(column, torch.Tensor):
        return column[row]
    part = _tensor_of(column[row])
    return part[()] if part.ndim == 0 else part


def _tensor_of(column: np.ndarray) -> Any:
    """A copy, as torch has no read-only tensors; an array of numpy where torch lacks the type."""
    return _tensor(np.array(column))


def _tensor(array: np.ndarray) -> Any:
    """An array of our own as a tensor, if torch has its type."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        return torch.from_numpy(array)
    except TypeError:
        return array


def _stacked(values: Sequence[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.stack(list(values))
    if isinstance(values[0], (np.ndarray, np.generic)):
        return _tensor(np.stack(values))
    return default_collate(list(values))
