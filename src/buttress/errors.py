"""The one exception that means: the caller can mend this."""


class UserError(ValueError):
    """A mistake of the caller's, described in one line: what was expected, what came, what to do.

    The command line prints the line and exits with status 2; every other exception is our fault (status 1).
    """
