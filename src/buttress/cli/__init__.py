"""The command line: words from the user to a job, and its lines and messages back."""

from buttress.cli.main import main

__all__ = ["main"]
