"""Where the command line begins: Ctrl-C while it is loaded."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from maskwright import cli
from maskwright.__main__ import main


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_the_command_line_is_loaded_is_told_in_one_word(tmp_path, ignored):
    (tmp_path / "cyclopts.py").write_text(  # which `cli` imports
        "import os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\nprint('still here')\nsys.exit(7)\n"
    )
    code = "import sys\nfrom maskwright.__main__ import main\nsys.exit(main())"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:  # as a shell does with what it starts in the background
        for words in (["-c", code], ["-m", "maskwright"]):
            done = subprocess.run(
                [sys.executable, *words, "--help"], env=where, check=False, capture_output=True, text=True
            )
            found = done.returncode, done.stdout, done.stderr
            assert found == ((7, "still here\n", "") if ignored else (130, "", "interrupted\n"))
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_begins_where_ctrl_c_is_told_in_one_word(monkeypatch):
    path = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(path.read_text())["project"]["scripts"] == {"maskwright": "maskwright.__main__:main"}
    seen = []
    monkeypatch.setattr(cli, "main", lambda: seen.append(signal.getsignal(signal.SIGINT)) or 5)
    before = signal.getsignal(signal.SIGINT)
    assert main() == 5
    assert seen == [before]  # once it is loaded, Ctrl-C is what it was


def test_the_entry_point_loads_next_to_nothing():
    code = "import sys\nfrom maskwright import __main__\nprint([n for n in ('typing', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
