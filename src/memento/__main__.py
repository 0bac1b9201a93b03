"""`python -m memento` is the command `memento`."""

from memento.cli.main import main

main()
