"""Functions of 15 lines and more say what they do, themselves or in the class they come from."""

import memento_datacenter
from docstrings import undocumented


def test_long_functions_have_docstrings():
    problems = undocumented(memento_datacenter)
    assert not problems, "\n" + "\n".join(problems)
