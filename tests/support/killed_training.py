"""Trains with t5_mesh_conv, is killed and started again: preemption_test.

Each training is a fork of this process, which has imported TensorFlow and T5.
Reads a JSON object from standard input and writes one to standard output.
"""

import glob
import json
import os
import random
import re
import signal
import sys
import time

from mtf_conv import t5_main

_LOSS = re.compile(r'step, tf_loss\[(\S+?)\]\[\d+\]')
_RESTORED = re.compile(r'Restoring parameters from \S*model\.ckpt-(\d+)')


def losses(log, offset=0):
  """The losses that T5 printed from there on: a list of (step, loss).

  They are counted: the step that T5 prints is read before or after it is
  counted up, as it happens.
  """
  try:
    with open(log) as f:
      f.seek(offset)
      text = f.read()
  except FileNotFoundError:
    return []
  restored = _RESTORED.search(text)
  return list(enumerate(map(float, _LOSS.findall(text)),
                        int(restored[1]) + 1 if restored else 1))


def _start(argv):
  pid = os.fork()
  if not pid:
    code = 1
    try:
      t5_main.console_entry_point(argv)
      code = 0
    except SystemExit as end:
      code = end.code or 0
    finally:
      os._exit(code)
  return pid


def _until_killed(argv, log, steps, delay):
  """Runs a training and kills it `delay` seconds after so many steps."""
  offset = os.path.getsize(log) if os.path.exists(log) else 0
  pid = _start(argv)
  while True:
    ended, status = os.waitpid(pid, os.WNOHANG)
    found = losses(log, offset)
    if ended:
      return {'losses': found, 'status': status}
    if steps is not None and len(found) >= steps:
      time.sleep(delay)
      os.kill(pid, signal.SIGKILL)
      _, status = os.waitpid(pid, 0)
      return {'losses': losses(log, offset), 'status': status}
    time.sleep(0.005)


def _cut_last_checkpoint(model_dir):
  last = max(int(re.search(r'ckpt-(\d+)', path).group(1)) for path in
             glob.glob(f'{glob.escape(model_dir)}/model.ckpt-*.index'))
  path = max(glob.glob(f'{glob.escape(model_dir)}/model.ckpt-{last}.data-*'),
             key=os.path.getsize)
  os.truncate(path, os.path.getsize(path) // 2)
  return last


def main():
  """Runs the undisturbed training, then the other one until it is through."""
  task = json.load(sys.stdin)
  t5_main.preload()
  rng = random.Random(0)
  plain, killed = (
      [flag.replace('MODEL_DIR', folder) for flag in task['argv']]
      for folder in (task['plain_dir'], task['killed_dir']))
  result = {'plain': None, 'runs': []}
  if task['undisturbed']:
    result['plain'] = _until_killed(
        plain, os.path.join(task['plain_dir'], 'log.txt'), None, 0)
  for low, high, cut in [*task['kills'], (None, None, False)]:
    steps = None if low is None else rng.randint(low, high)
    run = _until_killed(killed, os.path.join(task['killed_dir'], 'log.txt'),
                        steps, rng.uniform(0, 0.1))
    if cut:
      run['cut'] = _cut_last_checkpoint(task['killed_dir'])
    result['runs'].append(run)
  json.dump(result, sys.stdout)


if __name__ == '__main__':
  main()
