"""The tests' cache of compiled statements is one for all engines of a kind."""

from contextlib import closing

from jobqueue.store.database import Store
from tests import statement_cache


def test_engines_of_a_kind_share_what_they_compile(url: str) -> None:
    kinds = set()
    for _ in range(2):
        with closing(Store(url)) as store:
            assert (
                store.revision() is not None
            )  # An engine learns the rest of its kind from its server.
            kinds.add(statement_cache.get(store.engine).kind)
    assert len(kinds) == 1
