"""What training methods share."""
