"""The peers' own programs, a module for each, run in the peer's environment and not in ours.

    python -m bench.peer huey drain URL JOBS

Each module has SETTINGS, words that stand beside its figures, and of these functions what the peer can do:

- `drain(url, jobs)`: seconds from the first handler's begin until the last outcome was stored, of jobs that were enqueued before;
- `bulk(url, jobs)`: seconds to enqueue them in large batches;
- `single(url, jobs)`: seconds to enqueue them one by one, each durable when its call returns;
- `work(url)` and `produce(url, jobs)`: the two sides of a pickup, in a process each; see roles.py.
"""
