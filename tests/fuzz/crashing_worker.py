"""A worker whose cases do what their names say, to see what the campaign makes of it."""

import json
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.stdout.write('"ready"\n')
    sys.stdout.flush()
    for line in sys.stdin:
        name, _, _ = json.loads(line)
        (Path(sys.argv[1]) / "case").mkdir(exist_ok=True)
        if name == "x/crash":
            os.abort()
        if name == "x/hang":
            time.sleep(600)
        time.sleep(0.05)
        sys.stdout.write(json.dumps({"kind": "success"}) + "\n")
        sys.stdout.flush()
