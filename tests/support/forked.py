"""Runs t5_mesh_conv and mtf_conv in forks of a process that has imported all.

A command that imports TensorFlow and T5 anew takes ten seconds for it. The
server is started by the first command of a test process, and ends with it.
Programs of the same names in `BIN` hand a shell's commands to it.
"""

import atexit
import functools
import gc
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

BIN = pathlib.Path(__file__).parent / 'bin'
_ADDRESS = 'MTF_CONV_FORKED'  # The environment variable of the server's socket.
_LONGEST = 1 << 20  # Bytes of a request.


def run(program, *args, cwd='/', timeout=600, **environment):
  """Runs a command as subprocess.run would.

  Args:
    program: 't5_mesh_conv' or 'mtf_conv'.
    *args: of the command.
    cwd: the folder it runs in.
    timeout: in seconds.
    **environment: variables besides those of this process; TensorFlow has read
      some of them by now, such as OMP_NUM_THREADS.

  Returns:
    A subprocess.CompletedProcess; its stdout holds the errors as well.
  """
  argv = [program, *map(str, args)]
  with tempfile.TemporaryFile('w+', errors='replace') as output:
    code = _ask(server(), [output.fileno()] * 2, {
        'argv': argv, 'cwd': str(cwd), 'timeout': timeout,
        'environment': {**os.environ, **environment}})
    output.seek(0)
    if code is None:
      raise subprocess.TimeoutExpired(argv, timeout, output.read())
    return subprocess.CompletedProcess(argv, code, output.read())


def environment():
  """Returns variables with which a shell finds the programs of `BIN`."""
  return {_ADDRESS: server(), 'PATH': f'{BIN}:{os.environ["PATH"]}'}


@functools.lru_cache(maxsize=None)
def server():
  """Starts the server of this process; returns the path of its socket."""
  folder = tempfile.TemporaryDirectory()
  address = os.path.join(folder.name, 'socket')
  process = subprocess.Popen(
      [sys.executable, __file__, address], stdin=subprocess.DEVNULL)

  def end():
    process.kill()
    process.wait()
    folder.cleanup()

  atexit.register(end)
  while not os.path.exists(address):
    assert process.poll() is None, 'the server could not start'
    time.sleep(0.05)
  return address


def main_of(program):
  """Hands the command line of this process to the server; ends as it ends."""
  sys.stdout.flush()
  code = _ask(os.environ[_ADDRESS], [1, 2], {
      'argv': [program, *sys.argv[1:]], 'cwd': os.getcwd(), 'timeout': 600,
      'environment': dict(os.environ)})
  sys.exit(124 if code is None else code)


def _ask(address, outputs, request):
  with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
    connection.connect(address)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
    socket.send_fds(connection, [json.dumps(request).encode()], outputs)
    return json.loads(connection.recv(_LONGEST))


def _serve(address):
  from mtf_conv import cli, t5_main
  t5_main.preload()
  gc.set_threshold(100_000, 50, 1000)  # See conftest.py.
  programs = {'t5_mesh_conv': t5_main.console_entry_point,
              'mtf_conv': cli.main}
  with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
    listening.bind(f'{address}.new')
    listening.listen()
    os.rename(f'{address}.new', address)
    while True:
      connection, _ = listening.accept()
      with connection:
        content, outputs, *_ = socket.recv_fds(connection, _LONGEST, 2)
        request = json.loads(content)
        pid = os.fork()
        if not pid:
          os.setsid()
          _run_in_child(programs[request['argv'][0]], outputs, request)
        for fd in outputs:
          os.close(fd)
        connection.send(json.dumps(_wait(pid, request['timeout'])).encode())


def _run_in_child(program, outputs, request):
  code = 1
  try:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd, output in zip((1, 2), outputs):
      os.dup2(output, fd)
    sys.stdout, sys.stderr = (
        open(fd, 'w', buffering=1, closefd=False) for fd in (1, 2))
    os.chdir(request['cwd'])
    os.environ.clear()
    os.environ.update(request['environment'])
    sys.path[:0] = filter(
        None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
    sys.argv = request['argv']
    code = program(request['argv']) or 0
  except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(bool(end.code))
  except BaseException:  # As Python does at its end.
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(pid, timeout):
  """Returns the exit code, None after the time."""
  deadline = time.monotonic() + timeout
  while time.monotonic() < deadline:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.01)
  os.killpg(pid, signal.SIGKILL)
  os.waitpid(pid, 0)
  return None


if __name__ == '__main__':
  _serve(sys.argv[1])
