"""The deployment on loopback, in a terminal: it tells where it is, starts anew what dies, and ends with a Ctrl-C."""

import os
import pty
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
UP_SECONDS = 180


def read_until(terminal: int, wanted: str) -> str:
    """What a terminal shows, up to a line in which something stands."""
    shown, give_up = "", time.monotonic() + UP_SECONDS
    while not re.search(wanted, shown):
        assert time.monotonic() < give_up, shown
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def processes_of(folder: Path) -> list[str]:
    """The command lines, and the environments, in which a folder stands."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ")]
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(str(folder) in text for text in texts):
            found.append(texts[0].replace("\0", " "))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="what is left is looked for in Linux's /proc")
def test_a_ctrl_c_in_the_terminal_ends_a_deployment_and_all_that_it_started():
    pytest.importorskip("dagster_postgres", reason="`make deploy-setup` installs it")
    if not list(Path("/usr/lib/postgresql").glob("*/bin")):
        pytest.skip("Postgres is not installed: `apt-get install postgresql`")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # Postgres is another user, where this is root
        work, tenants = Path(folder) / "work", Path(folder) / "tenants.yaml"
        tenants.write_text(f"acme: {{source: folder, data_dir: {folder}}}\nwide-receivers: false\n", encoding="utf-8")
        command = [sys.executable, "-m", "deploy.loopback", str(work), "--tenants", str(tenants), "--port", "0"]
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(REPOSITORY)
            os.execv(sys.executable, command)
        shown = read_until(terminal, r"http://127\.0\.0\.1:[1-9]\d+/assets")
        assert "Traceback" not in shown
        assert len(processes_of(work)) > 5
        webserver = next(each for each in Path("/proc").glob("[0-9]*") if _is_webserver(each, work))
        os.kill(int(webserver.name), signal.SIGKILL)
        assert "webserver had ended, and is started anew" in read_until(terminal, "started anew")
        os.write(terminal, b"\x03")
        read_until(terminal, "\\^C")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 130
        assert processes_of(work) == []


def _is_webserver(process: Path, work: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
        return b"dagster_webserver" in command and str(work).encode() in (process / "environ").read_bytes()
    except OSError:
        return False
