"""What is on television: sizes and quality of every chunk of six stations, in ten formats each.

A chunk has 2.002 s of video. How much a scene changes scales the sizes of all formats alike, and
hard scenes look worse; so the ten formats of a chunk move together. Levels and shapes follow what
is published about Puffer's encodings: mean sizes and SSIM of the ten formats over six stations, the
quantiles of the smallest format's SSIM, and a few chunks in full.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt

from memento.arguments import NotNegative, Positive, Seed, Share, check_fields, number
from memento.errors import SettingError
from memento_puffer.data.layout import CHUNK_SECONDS
from memento_puffer.predictor.transmission import LADDER_MB

__all__ = ["CHANNELS", "CHUNKS", "FORMATS", "Content", "Programme"]

CHUNKS = int(86400 / CHUNK_SECONDS)  # that are complete within a day

_720 = (
    *("426x240-26", "640x360-26", "640x360-24", "854x480-26", "854x480-24", "854x480-22"),
    *("1280x720-26", "1280x720-24", "1280x720-22", "1280x720-20"),
)
_1080 = (
    *("426x240-26", "640x360-24", "854x480-26", "854x480-24", "1280x720-26", "1280x720-24"),
    *("1280x720-22", "1280x720-20", "1920x1080-24", "1920x1080-22"),
)
CHANNELS = ("abc", "cbs", "fox", "nbc", "pbs", "univision")
"""Names of the stations; a channel's number is its position here."""
FORMATS: tuple[tuple[str, ...], ...] = (_720, _1080, _720, _1080, _1080, _720)
"""Names of the ten formats of each channel, from small to large (Puffer's settings)."""

_SIZES = 1e6 * np.array(LADDER_MB)  # mean bytes
_QUALITY = np.array([10.48, 12.26, 12.85, 13.47, 14.22, 14.84, 15.64, 16.36, 17.00, 17.78])  # dB
_SHAPE = (_QUALITY - _QUALITY[0]) / (_QUALITY[-1] - _QUALITY[0])
# Quality of the smallest format: inverse CDF in dB over the first chunks that BBA sent.
_SMALLEST = {
    0.0: 4.0, 0.01: 5.65, 0.05: 6.67, 0.1: 7.46, 0.25: 8.81, 0.5: 10.40, 0.75: 12.15, 0.9: 13.87,
    0.95: 14.99, 0.99: 17.58, 0.999: 24.9, 1.0: 27.0,
}  # fmt: skip
_LEAST_RATIO, _LARGEST_RATIO = 1.201, 2.899  # of the sizes of neighbouring formats
_LEAST_SPREAD = 1.5  # dB between the smallest and the largest format


class Programme(NamedTuple):
    """A day of all channels, by (channel, chunk, format).

    Attributes:
        sizes: int32 bytes.
        ssim: float32 SSIM index in (0, 1).
    """

    sizes: npt.NDArray[np.int32]
    ssim: npt.NDArray[np.float32]


_BELOW_ONE = number(0, math.nextafter(1, 0), words="a number in [0, 1)")


@dataclass(frozen=True)
class Content:
    """Live television, the same for all viewers: what is on depends on seed, day and channel.

    The log of a scene's complexity is an autoregression over chunks, with rare bursts by which all
    sizes grow four to eight times. The quality of the smallest format is correlated with it and has
    the published distribution; the other formats lie above it, the closer the better it is.

    Args:
        seed: >= 0.
        spread: Standard deviation of the log of complexity, >= 0.
        memory: Its correlation from chunk to chunk, in [0, 1).
        bursts: Chance that a burst begins with a chunk, in [0, 1); it lasts two on average.
        hardness: Correlation of complexity with low quality, in [0, 1].
        scale: What mean sizes are multiplied with, above 0.

    Raises:
        SettingError: A setting out of its range.

    Example:
        >>> content = Content(seed=1)
        >>> sizes, ssim = content.day(0, "nbc")
        >>> sizes.shape, ssim.shape
        ((43156, 10), (43156, 10))
        >>> bool((np.diff(sizes) > 0).all()), bool((np.diff(ssim) > 0).all())
        (True, True)
    """

    seed: Seed = 0
    spread: NotNegative = 0.6
    memory: Annotated[float, _BELOW_ONE] = 0.8
    bursts: Annotated[float, _BELOW_ONE] = 0.004
    hardness: Share = 0.5
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return CHANNELS

    @property
    def formats(self) -> tuple[tuple[str, ...], ...]:
        """Names of the formats of each channel, ascending in size."""
        return FORMATS

    def day(
        self, number: int, channel: str | int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Sizes and SSIM of a channel's chunks; chunk i is complete (i + 1) 2.002 s into the day.

        Args:
            number: The day, from 0.
            channel: Its name or number.

        Returns:
            (chunks, 10) int32 bytes and (chunks, 10) float32 SSIM index. A chunk's video_ts is
            its number times 180180.

        Raises:
            SettingError: A negative day, or no such channel.
        """
        if number < 0:
            raise SettingError(f"day {number}; days count from 0")
        if isinstance(channel, str):
            if channel not in CHANNELS:
                raise SettingError(f"channel {channel!r}; expected one of {', '.join(CHANNELS)}")
            channel = CHANNELS.index(channel)
        if not 0 <= channel < len(CHANNELS):
            raise SettingError(f"channel {channel}; they count from 0 to {len(CHANNELS) - 1}")
        return _encoded_channel(self, number, channel)

    def programme(self, number: int) -> Programme:
        """All channels of a day.

        Raises:
            SettingError: A negative day.
        """
        days = [self.day(number, channel) for channel in range(len(CHANNELS))]
        return Programme(np.stack([d[0] for d in days]), np.stack([d[1] for d in days]))


@lru_cache(maxsize=len(CHANNELS))
def _encoded_channel(
    content: Content, number: int, channel: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Sizes and SSIM index of a channel's chunks, (chunks, formats) each; read-only."""
    from memento_puffer._kernels.streaming import smooth

    rng = np.random.default_rng([content.seed, number, channel])
    scene = smooth(rng.standard_normal(CHUNKS), content.memory)
    look = smooth(rng.standard_normal(CHUNKS), content.memory)
    begins = rng.random(CHUNKS) < content.bursts
    lasts = begins | (np.r_[False, begins[:-1]] & (rng.random(CHUNKS) < 0.7))
    heights = rng.uniform(math.log(4), math.log(8), CHUNKS)
    burst = np.where(lasts, heights, 0.0)

    # The mean size stays that of the ladder, but for bursts.
    complexity = content.spread * scene - 0.5 * content.spread**2 + burst
    own = np.exp(0.08 * rng.standard_normal((CHUNKS, len(_SIZES))))
    sizes = content.scale * _SIZES * own * np.exp(complexity)[:, None]
    for f in range(1, len(_SIZES)):
        least, most = _LEAST_RATIO * sizes[:, f - 1], _LARGEST_RATIO * sizes[:, f - 1]
        sizes[:, f] = np.clip(sizes[:, f], least, most)

    hard = np.clip(scene + burst, -4, 4)
    z = content.hardness * hard + math.sqrt(1 - content.hardness**2) * look
    share = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in z])
    smallest = np.interp(share, list(_SMALLEST), list(_SMALLEST.values()))
    spread = np.maximum(7.2 - 0.52 * (smallest - _QUALITY[0]), _LEAST_SPREAD)
    quality = smallest[:, None] + spread[:, None] * _SHAPE
    encoded = np.rint(sizes).astype(np.int32), (1 - 10 ** (-quality / 10)).astype(np.float32)
    for array in encoded:
        array.flags.writeable = False
    return encoded
