"""Published claims: recipes that say what was published, and what it takes to reproduce it."""

from buttress.claims.document import write_document
from buttress.claims.recipe import Recipe, find, recipes

__all__ = ["Recipe", "find", "recipes", "write_document"]
