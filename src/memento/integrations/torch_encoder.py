"""PyTorch: a module, or one of its layers, as an encoder; see `memento.integrations.encoders`."""

from __future__ import annotations

from typing import Any

import numpy as np

from memento.errors import SettingError
from memento.integrations.encoders import Encoder
from memento.integrations.torch_data import import_torch
from memento.learner import digest_of_state

__all__ = ["torch_encoder"]


def torch_encoder(
    module: Any, layer: str = "", *, inputs: str = "x", column: str = "z", rows: int = 4096
) -> Encoder:
    """An encoder that is a module, or what one of its layers gives on the way.

    Nothing is trained by it, and the module and its parts stay in the modes that they are in. Its
    version is the digest of its parameters and buffers, and the layer.

    Args:
        module: From a tensor of inputs to a tensor.
        layer: Name of a layer as in ``module.named_modules()``; the module's own output if empty.
        inputs: Column of the inputs; of floats it is handed on in the module's own precision.
        column: Column of the vectors.
        rows: Inputs that are encoded at once.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SettingError: It is no module, or has no such layer.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> torch_encoder(net, "1").encode(np.ones((5, 4))).shape
        (5, 3)
    """
    torch = import_torch("torch_encoder")
    if not isinstance(module, torch.nn.Module):
        raise SettingError(f"module is a {type(module).__name__}; expected a torch.nn.Module")
    layers = dict(module.named_modules())
    if layer not in layers:
        raise SettingError(
            f"layer is {layer!r}; there are {', '.join(repr(name) for name in layers if name)}"
        )

    def encode(values: np.ndarray) -> np.ndarray:
        known = next((p for p in module.parameters() if p.is_floating_point()), None)
        tensor = torch.from_numpy(np.array(values))
        if known is not None:
            kind = known.dtype if tensor.is_floating_point() else None
            tensor = tensor.to(device=known.device, dtype=kind)
        seen: list[Any] = []
        # A copy: the next layer may work in place.
        hook = layers[layer].register_forward_hook(lambda *passed: seen.append(passed[-1].clone()))
        modes = [(part, part.training) for part in module.modules()]
        try:
            module.eval()
            with torch.no_grad():
                module(tensor)
        finally:
            hook.remove()
            for part, mode in modes:  # one by one: some may be frozen
                part.training = mode
        found: np.ndarray = seen[-1].float().cpu().numpy()
        return found

    def version() -> str:
        state: dict[str, np.ndarray] = {}
        for name, value in module.state_dict().items():
            value = value.detach().cpu()
            try:
                state[name] = value.numpy()
            except TypeError:  # numpy lacks bfloat16, say
                key = f"{name}:{value.dtype}:{tuple(value.shape)}"
                state[key] = value.contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{digest_of_state(state)}:{layer}"

    return Encoder(encode, version, inputs, column, rows)
