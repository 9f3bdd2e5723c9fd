"""What a worker measures and shows of itself."""
