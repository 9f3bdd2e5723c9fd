"""What runs jobs: small services around one line, claim → execute → complete."""
