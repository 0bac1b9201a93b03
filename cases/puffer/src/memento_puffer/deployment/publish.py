"""The five networks as files that Puffer's server reads, published together.

ROOT/versions/2022-09-20/     py-N.pt, cpp-N.pt, cpp-meta-N.json for N 0 to 4, manifest.json
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np

from memento.deployment import publication
from memento.errors import ModelError
from memento.learner import digest_of_state
from memento_puffer.predictor.network import INPUTS, Network
from memento_puffer.predictor.ttp import HORIZONS, Ttp, read_cpp, read_meta

__all__ = ["Publication", "digest_of", "is_sound"]

_FILES = tuple(
    name for h in range(HORIZONS) for name in (f"py-{h}.pt", f"cpp-{h}.pt", f"cpp-meta-{h}.json")
)


class _TtpFiles:
    """See ``memento.deployment.publication.ModelFiles``."""

    format = "memento-puffer-model"
    key = "networks"
    remedy = "roll back to another version"

    def identity(self, model: Ttp) -> list[str]:
        return [digest_of(network) for network in model]

    def write(self, folder: Path, model: Ttp) -> tuple[str, ...]:
        model.write(folder)
        for h in range(HORIZONS):
            path = folder / f"cpp-{h}.pt"
            path.write_bytes(_renumbered(path.read_bytes()))
        Ttp.read(folder)  # all three files of a network agree
        return _FILES

    def read(self, folder: Path) -> Ttp:
        """In float64, without PyTorch."""
        return Ttp(
            tuple(
                Network(
                    read_cpp(folder / f"cpp-{h}.pt"), read_meta(folder / f"cpp-meta-{h}.json")
                ).astype(np.float64)
                for h in range(HORIZONS)
            )
        )

    def check(self, model: Ttp) -> None:
        for h, network in enumerate(model):
            if not is_sound(network):
                raise ModelError(f"network {h} does not predict distributions; it is not published")

    def lacking(self, identity: object, other: object) -> tuple[str, ...]:
        return ()  # all five or none


class Publication(publication.Publication):
    """The published versions of one variant, each a `Ttp`.

    Args:
        root: Folder of its own; made by the first publication.
        keep: How many of the versions published last stay, at least 1; what serves always does.

    Raises:
        SettingError: ``keep`` is below 1.

    Example:
        >>> import tempfile
        >>> models = Publication(Path(tempfile.mkdtemp()) / "models", keep=2)
        >>> for seed in range(3):
        ...     version = models.publish(Ttp.fresh(seed), f"v{seed}")
        >>> models.current().name, [version.name for version in models.versions()]
        ('v2', ['v1', 'v2'])
        >>> models.rollback("stalls have doubled").name
        'v1'
    """

    def __init__(self, root: str | Path, keep: int = 14) -> None:
        super().__init__(root, _TtpFiles(), keep, inside="versions")


def digest_of(network: Network) -> str:
    """SHA-256 of a network as files hold it, in float64, so that its precision does not matter.

    Example:
        >>> network = Network.fresh(seed=1)
        >>> digest_of(network) == digest_of(network.astype("float64"))
        True
    """
    return digest_of_state(network.astype(np.float64).arrays())


def is_sound(network: Network) -> bool:
    """Whether a network gives distributions, for ordinary inputs and for extreme ones.

    What is not sound is never published.

    Example:
        >>> is_sound(Network.fresh(seed=1))
        True
    """
    network = network.astype(np.float64)  # as files hold it
    moments = network.moments
    x = moments.mean + moments.scale * np.random.default_rng(0).normal(size=(64, INPUTS))
    x = np.concatenate([x, np.zeros((1, INPUTS)), moments.mean + 20 * moments.scale[None]])
    with np.errstate(all="ignore"):
        chances = network.probabilities(x)
        return bool(np.isfinite(chances).all() and np.allclose(chances.sum(axis=1), 1, atol=1e-3))


_CLASS = re.compile(r"(__torch__\.torch\.nn\.modules\.\w+?)(?:\.___torch_mangle_(\d+))?(\.[A-Z])")
_PICKLED = re.compile(rb"c(__torch__\.torch\.nn\.modules\.\w+?)(?:\.___torch_mangle_(\d+))?\n")
_CODE = re.compile(r"(.*/code/__torch__/torch/nn/modules/\w+?)(?:/___torch_mangle_(\d+))?\.py")


def _renumbered(data: bytes) -> bytes:
    """A TorchScript archive whose class names do not depend on what was traced before.

    PyTorch numbers the classes of a process, so the same network gives other bytes the second time.
    """
    numbers: dict[tuple[str, str], int] = {}

    def number(stem: str, old: str) -> int:
        return numbers.setdefault((stem.rpartition(".")[2], old), len(numbers))

    def in_text(match: re.Match[str]) -> str:
        return f"{match[1]}.___torch_mangle_{number(match[1], match[2] or '')}{match[3]}"

    def in_pickle(match: re.Match[bytes]) -> bytes:
        count = number(match[1].decode(), (match[2] or b"").decode())
        return b"c" + match[1] + b".___torch_mangle_%d\n" % count

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            record = old.read(name)
            if match := _CODE.fullmatch(name):
                stem = match[1].rpartition("/")[2]
                name = f"{match[1]}/___torch_mangle_{number(stem, match[2] or '')}.py"
                record = _CLASS.sub(in_text, record.decode()).encode()
            elif name.endswith("/data.pkl"):
                record = _PICKLED.sub(in_pickle, record)
            new.writestr(zipfile.ZipInfo(name), record)
    return buffer.getvalue()
