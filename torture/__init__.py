"""A campaign of kills, faults and bad input against whatever Memento does on a disk.

`make torture` runs it; `docs/reliability.md` says what came of it.
"""
