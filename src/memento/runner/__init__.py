"""Experiments: declared once, run anywhere, done once.

`spec` says what an experiment is, `registry` finds the declarations, `results` keeps what came out,
`job` runs one experiment, `schedule` runs many in the order of their needs, `executors` are the
places where jobs run, and `settings` reads what a user wants otherwise.
"""
