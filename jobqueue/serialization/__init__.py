"""Values as canonical JSON text, and back."""
