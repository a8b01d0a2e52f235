"""Seeded damage to every kind of file that the package reads; `python -m tests.fuzz --help`."""
