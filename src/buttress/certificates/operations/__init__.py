"""What bounds need to know of each of torch's operations."""
