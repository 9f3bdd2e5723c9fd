"""Worker processes: started, watched, replaced and stopped; it imports nothing of a worker."""
