"""The handler's side: its context, and what became of its call."""
