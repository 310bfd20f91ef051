"""Workflows: stages put in order, what the command line and notebooks ask for."""
