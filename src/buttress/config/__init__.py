"""Between text and typed objects: command-line words, YAML files, recipes, and their error messages."""

FROM_THE_COMMAND_LINE = ("reporter", "command")  # parameters of jobs that are no options
