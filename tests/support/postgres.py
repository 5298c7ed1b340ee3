"""Run a temporary PostgreSQL server from the Debian package: ``apt-get install postgresql``.

``python postgres.py`` tries it. The server programs refuse to run as root; they run as the user ``postgres`` then.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "correct-horse-battery"
_TIMEOUT_S = 60


def missing_requirement():
    """Return why PostgreSQL cannot run here, or None if it can."""
    if _programs() is None:
        return "no PostgreSQL: apt-get install postgresql"
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "PostgreSQL refuses to be root, and there is no user postgres"
    return None


@contextmanager
def postgres(directory: Path):
    """Run a server in an empty directory that all users may enter; yield the URL of its database, with password."""
    programs, port = _programs(), _free_port()
    secret = directory / "password"
    secret.write_text(PASSWORD)
    data = directory / "data"
    data.mkdir()
    if os.geteuid() == 0:
        for path in (directory, secret, data):
            shutil.chown(path, "postgres", "postgres")
    options = ("-D", str(data), "-U", "afqmc", "--auth=scram-sha-256", f"--pwfile={secret}")
    subprocess.run([programs / "initdb", *options], check=True, capture_output=True, **_unprivileged())
    words = ("-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(directory), "-c", "fsync=off")
    with (directory / "log").open("w") as log:
        server = subprocess.Popen([programs / "postgres", *words], stdout=log, stderr=log, **_unprivileged())
    try:
        _until_ready(programs, port)
        yield f"postgresql+psycopg2://afqmc:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # fast shutdown: open connections are closed
        server.wait(_TIMEOUT_S)


def _programs():
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return programs[-1].parent if programs else None


def _unprivileged():
    return {"user": "postgres", "group": "postgres", "cwd": "/"} if os.geteuid() == 0 else {"cwd": "/"}


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _until_ready(programs, port):
    since = time.monotonic()
    while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
        if time.monotonic() - since > _TIMEOUT_S:
            raise RuntimeError("PostgreSQL did not start")
        time.sleep(0.2)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory, postgres(Path(directory)) as address:
        print(address)
