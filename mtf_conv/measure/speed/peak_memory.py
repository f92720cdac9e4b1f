"""The peak memory of a step of training, in a process of its own."""

import json
import os
import subprocess
import sys

import tensorflow.compat.v1 as tf

from mtf_conv.base import errors
from mtf_conv.measure.speed import whole_models


def can_measure() -> bool:
  """Returns whether this system tells what is resident: Linux does."""
  return os.path.exists('/proc/self/clear_refs')


def peak(path, batch, inputs, targets, vocabulary, size=(),
         stock=False) -> int:
  """Measures what a step of training takes beside the weights.

  The process has built the graph and initialized the variables; what its
  resident memory then grows by at most, over three steps, is what counts:
  neither TensorFlow itself nor the weights, but all activations, gradients and
  what the allocator keeps.

  Args:
    path: the model's gin file.
    batch: rows in a batch.
    inputs: the length of inputs.
    targets: the length of targets.
    vocabulary: how many ids there are.
    size: gin bindings that come after the file.
    stock: whether embedding, loss, norms and optimizer are T5's own.

  Returns:
    Bytes.

  Raises:
    errors.UserError: the process died, perhaps of a lack of memory.
  """
  done = subprocess.run(
      [sys.executable, '-m', __name__,
       json.dumps([[path, batch, inputs, targets, vocabulary, list(size)],
                   stock])],
      capture_output=True, text=True)
  if done.returncode:
    last = (done.stderr.strip() or 'killed').splitlines()[-1]
    raise errors.UserError(
        f'the process that measures the memory of {path} at length {inputs} '
        f'ended with {done.returncode}: {last}')
  return int(done.stdout.split()[-1])


def _resident(field):
  """VmRSS, what is resident; VmHWM, the most that ever was; in bytes."""
  with open('/proc/self/status') as f:
    line, = (line for line in f if line.startswith(field + ':'))
  return 1024 * int(line.split()[1])


def _main():
  tf.disable_v2_behavior()
  arguments, stock = json.loads(sys.argv[1])
  train = whole_models.training_step(*arguments, check=False, stock=stock)
  before = _resident('VmRSS')
  with open('/proc/self/clear_refs', 'w') as f:
    f.write('5')  # Sets VmHWM back: building took memory as well.
  for _ in range(3):
    train()
  print(_resident('VmHWM') - before)


if __name__ == '__main__':
  _main()
