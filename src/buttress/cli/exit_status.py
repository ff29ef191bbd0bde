"""Exit statuses of the command."""

DONE = 0
FAULT = 1  # ours
MISTAKE = 2  # the user's
GATE = 3  # robust accuracy is below --fail-under
STOPPED = 128  # plus the signal's number
