"""The one exception that means: the caller can mend this."""


class UserError(ValueError):
    """A mistake of the caller's, described in one line: what was expected, what came, what to do.

    The command line prints the line and exits with status 2; a `GateNotMet` has status 3, and every other exception is
    our fault (status 1).
    """


class GateNotMet(UserError):  # noqa: N818  # a result, and no mistake
    """Robust accuracy is below the bound that the user set, a result that a build is to fail by."""
