from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memento_puffer.predictor.transmission import CLASSES, class_of


@given(st.floats(0, 1e9))
def test_classes_are_half_seconds(seconds: float) -> None:
    label = int(class_of(np.array([seconds]))[0])
    assert 0 <= label < CLASSES
    if label:
        assert seconds >= 0.5 * label - 0.25
    if label < CLASSES - 1:
        assert seconds < 0.5 * label + 0.25
