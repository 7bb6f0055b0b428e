"""Asks the server inside the box until the file named appears, half the time on a new connection; then says what came of it."""

import http.client
import itertools
import json
import os
import sys
import threading
import time

BODY = json.dumps({"model": "default/main", "messages": [{"role": "user", "content": "hello"}]})
answered: list[float] = []
dropped: list[str] = []
releases: set[str] = set()


def ask(keep: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", 8765, timeout=60)
    pause = threading.Event()
    while not os.path.exists(sys.argv[1]):
        pause.wait(0.005)  # else they starve what runs beside them
        if not keep:
            connection.close()
        try:
            connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == 200:
                answered.append(time.monotonic())
                releases.add(answer.headers["x-lorad-release"])
            else:
                dropped.append(f"{answer.status} {content[:100]!r}")
        except (OSError, http.client.HTTPException) as error:
            dropped.append(repr(error))
            connection.close()
    connection.close()


threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
times = sorted(answered)
gap = max((after - before for before, after in itertools.pairwise(times)), default=0.0)
sys.stdout.write(json.dumps({"answered": len(answered), "dropped": dropped, "longest_gap_s": round(gap, 2), "releases": sorted(releases)}))
