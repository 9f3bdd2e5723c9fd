"""How fast is it, here? `python -m bench --help`; what is measured, and how, is in README.md."""
