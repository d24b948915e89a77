"""A command through any shell, and its own words out of any noise."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from workers.transports.framing import MOST_COMMAND_BYTES, Frame
from workers.transports.pump import Heard

NASTY = [
    "",
    " ",
    "plain",
    "=equals",
    "%percent %s %b",
    "$(touch pwned) `id` $HOME ${HOME}",
    "\"double\" 'single' \\ \\\\ \\' \\0101 !! !x",
    "line\nbreak\n\n",
    "tab\t\x07\x7f",
    "é ✓",
    "not utf-8 \udcff\udc80",
    "~ * ? [a] {a,b} # ; & | < > ^ ( )",
    "-n",
]


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "ksh", "mksh", "zsh", "csh", "tcsh", "fish", "busybox"])
def test_a_command_passes_through_a_login_shell_unharmed(shell: str, tmp_path: object) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} on this machine")
    frame = Frame.new()
    command = frame.command(["printf", "%s\\0", *NASTY])
    words = [program, "sh"] if shell == "busybox" else [program]
    done = subprocess.run([*words, "-c", command], capture_output=True, check=True, cwd=str(tmp_path))
    answer = frame.answer(Heard(bytearray(done.stdout), bytearray(done.stderr)))
    assert answer is not None
    assert answer[0] == 0
    assert answer[1].decode("utf-8", "surrogateescape").split("\0") == [*NASTY, ""]
    assert answer[2] == b""


def test_noise_before_and_after_is_left_out() -> None:
    frame = Frame("n1")
    out = b"welcome\nn2 begin\nn2 end 0\n\nn1 begin\n\nn2 end 0\nvalue\nn1 end 3\nbye"
    err = b"x\nn1 begin\n\nn1 end 3\n"
    assert frame.answer(Heard(bytearray(out), bytearray(err))) == (3, b"\nn2 end 0\nvalue", b"")


@pytest.mark.parametrize(
    "out,err",
    [
        (b"", b""),
        (b"\nn1 begin\nhalf", b"\nn1 begin\n"),
        (b"\nn1 begin\nall\nn1 end 0\n", b"\nn1 begin\n"),
        (b"\nn1 begin\nall\nn1 end ", b"\nn1 begin\n\nn1 end 0\n"),
    ],
)
def test_half_an_answer_is_none(out: bytes, err: bytes) -> None:
    assert Frame("n1").answer(Heard(bytearray(out), bytearray(err))) is None


@pytest.mark.parametrize("argv", [[], [""], ["-x"], ["a", "b\0c"], ["a", "x" * MOST_COMMAND_BYTES]])
def test_what_cannot_be_a_command_is_refused(argv: list[str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Frame.new().command(argv)
