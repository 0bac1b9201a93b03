"""What is raised where an optional dependency is missing."""

from __future__ import annotations

import importlib

import pytest

from memento.errors import MissingExtraError, needs


@pytest.mark.parametrize(
    ("extra", "wanted"), [("x", '"memento-replay[x]"'), (None, "some-package")]
)
def test_a_package_that_is_not_installed(extra, wanted):
    with pytest.raises(MissingExtraError) as caught, needs("some-package", extra, "reading"):
        importlib.import_module("some_package_that_is_nowhere")
    assert str(caught.value) == (
        "reading needs the package 'some-package', which is not installed: pip install " + wanted
    )


def test_a_package_that_is_broken_says_so():
    with pytest.raises(MissingExtraError) as caught, needs("some-package", "x", "reading"):
        raise ImportError("libfreetype.so.6: cannot open shared object file\nmore")
    assert str(caught.value) == (
        "reading needs the package 'some-package', which cannot be imported (libfreetype.so.6: "
        'cannot open shared object file); install it anew: pip install "memento-replay[x]"'
    )
