"""python -m bench.peer NAME drain|bulk|single|work|produce URL JOBS"""

import importlib
import sys

from bench.children import say


def main() -> None:
    name, role, url, total = sys.argv[1:5]
    peer = importlib.import_module(f"bench.peer.{name}")
    say("settings", words=peer.SETTINGS.get("pickup" if role == "work" else role, ""))
    if role == "work":
        peer.work(url)
    elif role == "produce":
        peer.produce(url, int(total))
    else:
        say("measured", rate=int(total) / getattr(peer, role)(url, int(total)))


if __name__ == "__main__":
    main()
