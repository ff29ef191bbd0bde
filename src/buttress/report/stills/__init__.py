"""Still pictures, for files that hold no script."""
