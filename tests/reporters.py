"""What a job tells its user, kept."""

from buttress.jobs.settings import Reporter


class Heard(Reporter):
    """Keeps the lines."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)
