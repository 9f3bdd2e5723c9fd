"""Leases, dead workers, due jobs."""
