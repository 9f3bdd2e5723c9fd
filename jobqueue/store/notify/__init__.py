"""Wake-ups: how a commit in one process reaches the workers that sleep in others."""
