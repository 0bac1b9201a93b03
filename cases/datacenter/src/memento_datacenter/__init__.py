"""Traffic in a data centre: tell applications by their packets, predict how long a packet takes.

Nothing is imported here, so that each step loads only what it needs.
"""
