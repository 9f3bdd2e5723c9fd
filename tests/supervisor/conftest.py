"""What tests of the supervisor share with those of the command line: an app, and real processes."""

from tests.cli.conftest import it, make_app, own_folder, spawn

__all__ = ["it", "make_app", "own_folder", "spawn"]
