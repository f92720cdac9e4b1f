"""Start-up: how long commands take before they answer, or train a step."""

import functools
import os
import re
import subprocess
import sys
import tempfile
import time

from mtf_conv.base import errors
from mtf_conv.measure.speed import results, timing

IMPORT = 'import tensorflow'
FIRST_STEP = 'first step of lightconv.tiny'
_STEP = re.compile(r'tf_loss\[')  # T5 prints the loss of each step.
# Commands that answer without TensorFlow, and what each ends with.
ANSWERS = {
    'mtf_conv --help': (['mtf_conv.cli', '--help'], 0),
    'mtf_conv list': (['mtf_conv.cli', 'list'], 0),
    'a wrong flag of mtf_conv': (['mtf_conv.cli', 'doctor', '--data-dir=x'], 2),
    't5_mesh_conv --help': (['mtf_conv.t5_main', '--help'], 0),
    'a wrong flag of t5_mesh_conv': (['mtf_conv.t5_main', '--gin_fil=x'], 2),
}
_TRAIN = [
    sys.executable, '-m', 'mtf_conv.t5_main',
    '--gin_file=models/lightconv.tiny.gin',
    '--gin_file=objectives/span_3_15.gin', '--gin_file=runs/demo_pretrain.gin',
    '--gin_file=hardware/cpu.gin']


def bench(seconds, rounds=5, say=print):
  """Times programs from their start, each in a process of its own.

  Args:
    seconds: for how long all are timed.
    rounds: how often each is run at least.
    say: is told what is timed.

  Returns:
    A list of results.row: the first step of a training over the import of
    TensorFlow alone, and the seconds of each of ANSWERS.

  Raises:
    errors.UserError: a program ends with an error.
  """
  say(', '.join([IMPORT, *ANSWERS, FIRST_STEP]))
  times = timing.interleave({
      IMPORT: lambda: _run(['-c', IMPORT]),
      **{name: functools.partial(_run, ['-m', *argv], code)
         for name, (argv, code) in ANSWERS.items()},
      FIRST_STEP: _train}, seconds, min_rounds=rounds, warm_up=1)
  return [*results.rows('start-up', times, [(FIRST_STEP, IMPORT)]),
          *(results.row(f'start-up: seconds of {name}', *times.seconds(name))
            for name in ANSWERS)]


def _run(argv, code=0):
  """Runs Python until it ends, as it should, with a code."""
  done = subprocess.run(
      [sys.executable, *argv], capture_output=True, text=True)
  if done.returncode != code:
    raise errors.UserError(
        f'{" ".join(argv)} ended with {done.returncode}: '
        f'{done.stderr.strip().splitlines()[-1:]}')


def _train():
  with tempfile.TemporaryDirectory() as folder:
    until(_STEP, [*_TRAIN, f'--model_dir={folder}'],
          os.path.join(folder, 'log.txt'))


def until(pattern, argv, log):
  """Runs a program until its log has a pattern, and ends it there.

  Args:
    pattern: a compiled regular expression.
    argv: the program and its arguments.
    log: the path of its log.

  Raises:
    errors.UserError: it ended before.
  """
  process = subprocess.Popen(
      argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  try:
    while not (os.path.exists(log) and pattern.search(_read(log))):
      if process.poll() is not None:
        raise errors.UserError(
            f'{" ".join(argv[1:])} ended with {process.returncode} before '
            f'{pattern.pattern!r} was in its log')
      time.sleep(0.01)
  finally:
    process.kill()
    process.wait()


def _read(path):
  with open(path, errors='replace') as f:
    return f.read()
