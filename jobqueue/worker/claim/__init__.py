"""Claim jobs: how many, and from where."""
