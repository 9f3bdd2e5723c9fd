"""The statements, in SQLAlchemy Core."""
