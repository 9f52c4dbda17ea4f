"""What Ray's processes need in their environment on a host that `ray up` prepares: `ray-cluster.yaml` runs it there.

    python -m serve_apps.host_environment >> FILE        lines for a shell: export NAME=value

Serve's proxies are started by Ray, not by the node, so what keeps HAProxy to its host and its deadlines has to be there
before. Writes the files that HAProxy is started with.
"""

from __future__ import annotations

import shlex
import sys

from cluster import config
from cluster.embedded.paths import private_folder
from serve_apps import haproxy


def main() -> int:
    """Print the lines."""
    settings = config.load()
    private_folder(settings.state_dir.resolve())
    for name, value in haproxy.environment(settings).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
