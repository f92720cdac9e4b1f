"""Runs t5_mesh_conv and mtf_conv in forks of a process that has imported all.

A command that imports TensorFlow and T5 anew takes ten seconds for it. The
server is started by the first command of a test process, and ends with it.
"""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback


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
  server = _server()
  argv = [program, *map(str, args)]
  with tempfile.NamedTemporaryFile('r', errors='replace') as output:
    json.dump({'argv': argv, 'cwd': str(cwd), 'timeout': timeout,
               'environment': {**os.environ, **environment},
               'output': output.name}, server.stdin)
    server.stdin.write('\n')
    server.stdin.flush()
    code = json.loads(server.stdout.readline())
    if code is None:
      raise subprocess.TimeoutExpired(argv, timeout, output.read())
    return subprocess.CompletedProcess(argv, code, output.read())


@functools.lru_cache(maxsize=None)
def _server():
  server = subprocess.Popen(
      [sys.executable, __file__], stdin=subprocess.PIPE, text=True,
      stdout=subprocess.PIPE)
  atexit.register(server.kill)
  return server


def _serve():
  from mtf_conv import cli, t5_main
  t5_main.preload()
  programs = {'t5_mesh_conv': t5_main.console_entry_point,
              'mtf_conv': cli.main}
  # What a command prints must not be taken for an answer.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  for line in sys.stdin:
    command = json.loads(line)
    pid = os.fork()
    if not pid:
      os.setsid()
      _run_in_child(programs[command['argv'][0]], command)
    print(json.dumps(_wait(pid, command['timeout'])), file=answers, flush=True)


def _run_in_child(program, command):
  code = 1
  try:
    output = os.open(command['output'], os.O_WRONLY | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd in (1, 2):
      os.dup2(output, fd)
    sys.stdout, sys.stderr = (
        open(fd, 'w', buffering=1, closefd=False) for fd in (1, 2))
    os.chdir(command['cwd'])
    os.environ.clear()
    os.environ.update(command['environment'])
    sys.path[:0] = filter(
        None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
    sys.argv = command['argv']
    code = program(command['argv']) or 0
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
  _serve()
