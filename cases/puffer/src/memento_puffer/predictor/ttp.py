"""Puffer's transmission time predictor: five small networks, and the files Puffer keeps them in.

How long will a chunk of video take to arrive? Network ``h`` answers for chunk ``n + h``, from the
eight chunks before ``n``, the state of TCP now and the size of chunk ``n + h``, with probabilities
of 21 classes of time (Yan et al., "Learning in situ: a randomized experiment in video streaming",
NSDI 2020, section 4.3). Predictions need numpy alone; PyTorch reads and writes the files.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import (
    DamagedError,
    ForeignError,
    ModelError,
    StorageError,
    needs,
)
from memento.files import replace_folder, storage_errors
from memento_puffer.data.archives import MODEL_FILES, model_files
from memento_puffer.data.layout import HORIZONS
from memento_puffer.predictor.network import (
    HIDDEN,
    INPUT_SETS,
    INPUTS,
    SHAPES,
    WEIGHTS,
    Moments,
    Network,
    check_numbers,
    row_count,
    shapes_of,
)
from memento_puffer.predictor.transmission import CLASSES

__all__ = [
    "HORIZONS",
    "Moments",
    "Network",
    "Ttp",
    "read_cpp",
    "read_meta",
    "read_network",
    "read_py",
]


@dataclass(frozen=True, eq=False)
class Ttp:
    """The whole predictor: one network for each of the next five chunks.

    Attributes:
        networks: Five; number h predicts chunk n + h.

    Raises:
        ModelError: Another number of networks, or some with other inputs than the others.

    Example:
        >>> ttp = Ttp.fresh(seed=0)
        >>> len(ttp), ttp[4].probabilities(np.zeros((1, 62))).shape
        (5, (1, 21))
    """

    networks: tuple[Network, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "networks", tuple(self.networks))
        if len(self.networks) != HORIZONS:
            raise ModelError(f"{len(self.networks)} networks; expected {HORIZONS}")
        if len({network.inputs for network in self.networks}) > 1:
            found = [network.inputs for network in self.networks]
            raise ModelError(f"networks of {found} inputs; a predictor's have the same")

    def __len__(self) -> int:
        return HORIZONS

    def __getitem__(self, horizon: int) -> Network:
        return self.networks[horizon]

    def __iter__(self) -> Iterator[Network]:
        return iter(self.networks)

    @property
    def inputs(self) -> int:
        """How many inputs its networks have: 62 or 17."""
        return self.networks[0].inputs

    @classmethod
    def fresh(cls, seed: int = 0, dtype: Any = np.float32, inputs: int = INPUTS) -> Ttp:
        """Five networks with random weights, each with its own; 17 inputs for none of TCP."""
        return cls(
            tuple(
                Network.fresh(seed + 1000 * h, dtype=dtype, inputs=inputs) for h in range(HORIZONS)
            )
        )

    def astype(self, dtype: Any) -> Ttp:
        """The same in float32 (faster) or float64."""
        return Ttp(tuple(network.astype(dtype) for network in self.networks))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Ttp:
        """Open a folder of Puffer's, of any year: py-N.pt, cpp-N.pt and cpp-meta-N.json, N 0 to 4.

        Files are parsed, never run: no object but numbers is unpickled, no program in a cpp file
        is loaded. Other files in the folder are ignored.

        Returns:
            In the precision of the files, which is float64.

        Raises:
            StorageError: The folder cannot be read.
            ForeignError: A file is missing, or holds other things than such a network.
            DamagedError: A file is cut off or changed, or the three of a network disagree.
            ModelError: A network of another shape, or numbers that are not finite.
            MissingExtraError: PyTorch is not installed.
        """
        folder = Path(folder)
        with storage_errors("read the model", folder):
            present = set(os.listdir(folder))
        absent = [name for name in MODEL_FILES if name not in present]
        if absent:
            raise ForeignError(
                f"{folder} lacks {', '.join(absent)}; a model is {len(MODEL_FILES)} files, copy all"
            )
        return cls(tuple(read_network(folder, h) for h in range(HORIZONS)))

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write all 15 files to a new folder, which is whole or absent.

        A Puffer server loads cpp-N.pt (TorchScript, from a (1, inputs) float64 example to logits)
        and cpp-meta-N.json; its trainer goes on from py-N.pt.

        Args:
            folder: Absent or empty; its parent exists.

        Raises:
            ForeignError: There is something at that place; models are never overwritten.
            StorageError, SpaceError: The files cannot be written; no part of them is left.
            MissingExtraError: PyTorch is not installed.
        """
        folder = Path(folder)
        if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and _is_empty(folder))):
            raise ForeignError(
                f"{folder} is there already; a model is never overwritten, so name a new folder"
            )
        contents: dict[str, bytes] = {}
        for h, network in enumerate(self.networks):
            made = (_py_bytes(network), _cpp_bytes(network), _meta_bytes(network.moments))
            contents.update(zip(model_files(h), made, strict=True))
        # The rename fails if another writer was faster.
        with (
            storage_errors("write the model", folder),
            replace_folder(folder, replace=False) as new,
        ):
            for name, data in contents.items():
                (new / name).write_bytes(data)


def read_py(path: str | os.PathLike[str]) -> Network:
    """Read a py-N.pt: weights, and the moments as numpy arrays.

    Only tensors, numpy arrays and plain containers are unpickled, under the names they had in
    numpy of any year.

    Raises:
        StorageError, ForeignError, DamagedError, ModelError, MissingExtraError: As `Ttp.read`.
    """
    path = Path(path)
    torch = _import_torch("Reading py-N.pt")
    data = _bytes_of(path)
    # The same function under its older names: numpy 2 moved it.
    rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    old_names = ("numpy.core.multiarray", "numpy.core._multiarray_umath", "numpy._core.multiarray")
    safe = [
        *((rebuild, f"{module}._reconstruct") for module in old_names),
        *(np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4"))),
    ]
    try:
        with torch.serialization.safe_globals(safe), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file fails in any of a dozen ways
        # torch wraps the reason in advice to allow anything, which nobody shall read here.
        reason = str(error.__context__ or error)
        if "GLOBAL " in reason or "Unsupported class" in reason:
            raise ForeignError(
                f"{path} holds objects other than tensors and arrays of numbers; nothing of it "
                "was run. Take the file from Puffer's archive again"
            ) from None
        raise DamagedError(_damaged_text(path, reason)) from None
    if not isinstance(content, dict) or not isinstance(content.get("model_state_dict"), dict):
        raise ForeignError(
            f"{path} is no predictor of Puffer's: expected model_state_dict, obs_size, obs_mean "
            "and obs_std in it"
        )
    arrays = {name: value for name, value in content.items() if name != "model_state_dict"}
    with _naming_file(path):
        for name, value in content["model_state_dict"].items():
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                raise ModelError(f"{name} holds no real numbers; expected float64")
            if value.is_sparse or value.is_quantized or value.dtype == torch.bfloat16:
                raise ModelError(f"{name} is of a kind that Puffer never wrote; expected float64")
            arrays[name] = value.detach().numpy()
        return Network.of_arrays(arrays)


def read_cpp(path: str | os.PathLike[str]) -> tuple[np.ndarray, ...]:
    """Read the weights of a cpp-N.pt, of PyTorch 1.0 or later; its program is not loaded.

    Returns:
        Six arrays of `SHAPES`, or of ``shapes_of(17)``, float32 or float64.

    Raises:
        StorageError, ForeignError, DamagedError, ModelError: As `Ttp.read`.
    """
    path = Path(path)
    data = _bytes_of(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # PyTorch 1.0 called the folder "tensors", later ones "data".
            found = {
                match[1]: archive.read(name)
                for name in archive.namelist()
                if (match := re.fullmatch(r"[^/]+/(?:tensors|data)/(\d+)", name))
            }
            orders = [archive.read(n) for n in archive.namelist() if n.endswith("/byteorder")]
    except Exception as error:  # zipfile, too, fails in many ways
        raise DamagedError(_damaged_text(path, str(error))) from error
    lengths = [len(found.get(str(i), b"")) for i in range(len(SHAPES))]
    with _naming_file(path):
        if len(found) != len(SHAPES) or 0 in lengths:
            raise ForeignError(
                f"holds the tensors {sorted(found)}; expected 0 to {len(SHAPES) - 1}, the weights "
                "of a predictor of Puffer's"
            )
        sizes = {n: [int(np.prod(shape)) for shape in shapes_of(n)] for n in INPUT_SETS}
        fits = [(w, n) for w in (8, 4) for n in sizes if lengths == [w * size for size in sizes[n]]]
        if not fits:
            raise ModelError(
                f"holds tensors of {lengths} bytes; expected {[8 * size for size in sizes[INPUTS]]}"
                f": a network {INPUTS}-{HIDDEN}-{HIDDEN}-{CLASSES} in float64"
            )
        width, inputs = fits[0]
        shapes = shapes_of(inputs)
        if any(order != b"little" for order in orders):
            raise ForeignError("holds big-endian numbers; write it on a little-endian machine")
        weights = tuple(
            np.frombuffer(found[str(i)], dtype=f"<f{width}").reshape(shape)
            for i, shape in enumerate(shapes)
        )
        for name, array, shape in zip(WEIGHTS, weights, shapes, strict=True):
            check_numbers(name, array, shape, inputs)
    return weights


def read_meta(path: str | os.PathLike[str]) -> Moments:
    """Read a cpp-meta-N.json: obs_size, obs_mean, obs_std.

    Raises:
        StorageError, ForeignError, DamagedError, ModelError: As `Ttp.read`.
    """
    path = Path(path)
    data = _bytes_of(path)
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(_damaged_text(path, str(error))) from error
    names = ("obs_size", "obs_mean", "obs_std")
    if not isinstance(content, dict) or any(name not in content for name in names):
        raise ForeignError(f"{path} is no normaliser of Puffer's: expected {', '.join(names)}")
    with _naming_file(path):
        return Moments(row_count(content["obs_size"]), content["obs_mean"], content["obs_std"])


def _import_torch(purpose: str) -> Any:
    with needs("torch", "torch", purpose):
        import torch
    return torch


def read_network(folder: Path, horizon: int) -> Network:
    """Read one network of a folder: its three files, which have to say the same.

    Raises:
        StorageError, ForeignError, DamagedError, ModelError, MissingExtraError: As `Ttp.read`.
    """
    py, cpp, meta = (folder / name for name in model_files(horizon))
    network, weights, moments = read_py(py), read_cpp(cpp), read_meta(meta)
    differs = []
    if not all(map(np.array_equal, network.weights, weights)):
        differs.append(f"{cpp.name} has other weights than {py.name}")
    mine = network.moments
    same = np.array_equal(mine.mean, moments.mean) and np.array_equal(mine.std, moments.std)
    if mine.count != moments.count or not same:
        differs.append(f"{meta.name} has other moments than {py.name}")
    if differs:
        raise DamagedError(f"{folder}: {'; '.join(differs)}; copy the whole model again")
    return network


def _bytes_of(path: Path) -> bytes:
    with storage_errors("read the model", path):
        return path.read_bytes()


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _damaged_text(path: Path, reason: str) -> str:
    first = (reason.splitlines() or ["no reason given"])[0][:200]
    return f"{path} cannot be read ({first}); it is cut off or changed: copy it again"


@contextlib.contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    """Put the file's name in front of what is wrong with its content."""
    try:
        yield
    except (ModelError, StorageError) as error:
        raise type(error)(f"{path}: {error}") from error


def _py_bytes(network: Network) -> bytes:
    """The content of a ``py-N.pt``, as Puffer's training writes it."""
    torch = _import_torch("Writing py-N.pt")
    buffer = io.BytesIO()
    content = {
        # torch has no read-only tensors, hence the copies.
        "model_state_dict": {
            name: torch.from_numpy(array.astype(np.float64))
            for name, array in zip(WEIGHTS, network.weights, strict=True)
        },
        "obs_size": network.moments.count,
        "obs_mean": network.moments.mean,
        "obs_std": network.moments.std,
    }
    torch.save(content, buffer)
    return _repacked_archive(buffer.getvalue())


def _cpp_bytes(network: Network) -> bytes:
    """A network as the TorchScript program that servers load."""
    torch = _import_torch("Writing cpp-N.pt")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another format
        module = torch.nn.Sequential(
            *(torch.nn.Linear(network.inputs, HIDDEN), torch.nn.ReLU()),
            *(torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU()),
            torch.nn.Linear(HIDDEN, CLASSES),
        ).double()
        weights = zip(WEIGHTS, network.weights, strict=True)
        module.load_state_dict({name: torch.from_numpy(a.astype("f8")) for name, a in weights})
        example = torch.zeros((1, network.inputs), dtype=torch.float64)
        buffer = io.BytesIO()
        module.eval().requires_grad_(False)  # a server only predicts
        torch.jit.save(torch.jit.trace(module, example), buffer)
    return _repacked_archive(buffer.getvalue())


def _meta_bytes(moments: Moments) -> bytes:
    content = {
        "obs_size": moments.count,
        "obs_mean": moments.mean.tolist(),
        "obs_std": moments.std.tolist(),
    }
    return json.dumps(content).encode()


def _repacked_archive(data: bytes) -> bytes:
    """An archive of torch's that older readers open, and that says nothing about this machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if name.endswith((".debug_pkl", "/serialization_id")):
                continue  # paths of source files; a digest of what stood here before
            record = old.read(name)
            if name.endswith("/data.pkl"):
                # The name that numpy 1 knows as well, so that trainers of 2022 can read it.
                record = record.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            new.writestr(zipfile.ZipInfo(name), record)  # stored as it is, dated 1980
    return buffer.getvalue()
