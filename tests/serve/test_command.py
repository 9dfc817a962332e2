"""`dhyan serve` as a command: where it listens, how it ends, and what it refuses in one line."""

import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from dhyan.cli import main
from dhyan.text.config import DataConfig
from dhyan.training import checkpoint
from dhyan.training.config import TrainConfig
from dhyan.training.folder import save_best, start_folder
from helpers.serving import JSON, SENTENCE, Client, make_translator

pytest.importorskip("starlette", reason="needs the extra dhyan[serve]")
pytest.importorskip("uvicorn", reason="needs the extra dhyan[serve]")


def save(path, translator):
    tables = {
        "model": translator.model.config.to_dict(),
        "train": TrainConfig().to_dict(),
        "data": DataConfig().to_dict(),
    }
    start_folder(path, tables, translator.source_vocab, translator.target_vocab)
    save_best(path, translator.model)
    assert checkpoint.load_file(path, "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve")
    save(path / "model", make_translator([SENTENCE]))
    save(path / "oracle", make_translator([SENTENCE], attention="oracle"))
    return path


STUCK = """
import sys, time
from dhyan.cli import main
from dhyan import Seq2Seq
Seq2Seq.advance_top = lambda *arguments: (print("a step", flush=True), time.sleep(600))
sys.exit(main())
"""


class Process:
    """A running server, and its address. code: what runs in the place of the command."""

    def __init__(self, *arguments, code=None):
        program = ["-m", "dhyan"] if code is None else ["-c", code]
        command = [sys.executable, "-W", "error", *program, "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        self.client = Client(int(self.line.rsplit(":", 1)[1].strip("/\n")))

    def end(self, number):
        """Its exit code, and what it said meanwhile."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_it(folder, number, code, busy):
    """Idle, or while it translates and a connection is open: the first line of a stream says that it does."""
    with answering(folder, busy) as (server, _):
        assert server.end(number) == (code, "dhyan: stopped\n")


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_it_at_once(folder, busy):
    """Within a fifth of a second where nothing else keeps the machine busy: only a quiet one can show it."""
    seconds = []
    while not seconds or (min(seconds) > 0.2 and len(seconds) < 3):
        with answering(folder, busy) as (server, _):
            begin = time.perf_counter()
            server.end(signal.SIGINT)
            seconds.append(time.perf_counter() - begin)
    assert min(seconds) <= 0.2, statistics.median(seconds)


@contextmanager
def answering(folder, busy):
    """A server, and a connection on which it writes the steps of a long search if busy."""
    server = Process(folder / "model")
    assert server.line == f"{folder / 'model'}: {server.client.url}\n"
    assert server.client.ask(text=SENTENCE)["tokens"]
    with socket.create_connection(("127.0.0.1", server.client.port)) as raw:
        if busy:
            text = " ".join(["खा"] * 499)
            body = f'{{"text": "{text}", "beam": 32, "max_length": 2000, "stream": true}}'.encode()
            head = f"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON['content-type']}\r\n"
            raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert raw.recv(1)
        yield server, raw


def test_a_step_that_does_not_end_is_not_waited_for(folder):
    server = Process(folder / "model", code=STUCK)
    body = f'{{"text": "{SENTENCE}"}}'.encode()
    head = f"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON['content-type']}\r\n"
    with socket.create_connection(("127.0.0.1", server.client.port)) as raw:
        raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert server.process.stdout.readline() == "a step\n"
        assert server.end(signal.SIGINT) == (130, "dhyan: stopped\n")


def refused(capsys, code, message, *arguments):
    assert main(["serve", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("dhyan: ") and err.count("\n") == 1 and message in err


def test_what_it_refuses_to_serve(folder, tmp_path, capsys):
    model = folder / "model"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(capsys, 1, f"serve: port {port} of 127.0.0.1 is in use; choose another", model, "--port", port)
    refused(capsys, 1, "gone: no such model folder", "gone", "--port", "0")
    refused(capsys, 1, "gone: no such model folder", model, "--against", "gone", "--port", "0")
    refused(capsys, 1, "gone.txt: no such file", model, "--examples", "gone.txt", "--port", "0")
    refused(capsys, 1, "attention 'oracle', which reads by gold links", folder / "oracle", "--port", "0")
    refused(capsys, 1, "--host is 'no.such.host.invalid'", model, "--host", "no.such.host.invalid", "--port", "0")
    refused(capsys, 1, "cannot listen at port 0 of 192.0.2.1", model, "--host", "192.0.2.1", "--port", "0")
    for port in ("65536", "-1", "http", "", "٣"):
        refused(capsys, 2, f"argument --port: got {port!r}, expected 0 to 65535", model, f"--port={port}")
    refused(capsys, 2, "serve: --weights is 'int4', expected one of: int8", model, "--weights", "int4")
    refused(capsys, 1, "shortlist", model, "--shortlist", "5", "--port", "0")
    refused(capsys, 2, "unknown option '--prot', did you mean: --port", model, "--prot", "1")


def test_other_machines_are_let_in_with_a_warning(folder):
    server = Process(folder / "model", "--weights", "bfloat16", "--host", "0.0.0.0", "--against", folder / "model")
    assert server.client.send("GET", "/", headers={"host": "evil.example"})[0] == 403
    assert server.client.send("GET", "/", headers={"host": "192.0.2.1"})[0] == 200
    code, said = server.end(signal.SIGINT)
    assert code == 130 and said.splitlines() == [
        "dhyan: warning: --host 0.0.0.0 lets other machines use this page, without password or encryption",
        "dhyan: stopped",
    ]


def test_the_other_loopback_address(folder):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    server = Process(folder / "model", "--host", "::1")
    assert server.line.endswith(f"http://[::1]:{server.client.port}/\n")
    with socket.create_connection(("::1", server.client.port), timeout=60) as raw:
        raw.sendall(f"HEAD / HTTP/1.1\r\nHost: [::1]:{server.client.port}\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 ")
    code, said = server.end(signal.SIGTERM)
    assert (code, said) == (143, "dhyan: stopped\n")  # and no warning


def test_without_the_extra_it_says_how_to_install_it(folder):
    code = "import sys; sys.modules['uvicorn'] = None; from dhyan.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", str(folder / "model")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "dhyan: serve needs starlette and uvicorn: pip install 'dhyan[serve]'\n"
