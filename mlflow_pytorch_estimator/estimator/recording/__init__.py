"""What a training script logs, and where it goes."""
