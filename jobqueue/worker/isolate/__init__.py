"""Run claimed jobs in child processes."""
