"""What differs between the databases, one file for each."""
