"""The command line. `main` is the entry point; each command group is a file."""
