"""Between text and typed objects: command-line words, YAML files, recipes, and their error messages."""
