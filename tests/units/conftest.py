import sys
from pathlib import Path

for _folder in ("system", "network", "serving"):  # Circle and its processes, two hosts, a tiny base
    sys.path.append(str(Path(__file__).parents[1] / _folder))
