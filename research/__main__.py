"""`python -m research` is `qt`."""

from research.cli import main

main()
