"""As many steps of training as go into some hours, on the machine at hand.

The number is found before the training begins, since its schedule depends on
it, and is kept in <model_dir>/budget.json: a training that goes on has the same
schedule.
"""

import json
import multiprocessing
import os
import tempfile

import gin
import tensorflow.compat.v1 as tf
from absl import flags
from mesh_tensorflow.transformer import utils

from mtf_conv.base import errors, files, terminal

_MEASURED = 100  # Steps whose rate is taken for that of all.
# Of the run that measures: it writes no checkpoint on its way.
_BINDINGS = {
    'utils.run.train_steps': _MEASURED,
    'utils.run.save_checkpoints_steps': _MEASURED,
    'mtf_conv.training.train_model.hours': None,
    'mtf_conv.training.train_model.held_out': None}


def steps(model_dir, hours):
  """Returns how many steps a training has that may take some hours.

  The first time, 100 steps are trained in a temporary folder. What a checkpoint
  takes, to be written and to be measured on held-out text, comes on top.

  Args:
    model_dir: of the training, whose gin is parsed.
    hours: a number above 0.

  Raises:
    errors.UserError: the training was begun with other hours; the hours are too
      few for as many steps as were measured; or these could not be trained.
  """
  path = os.path.join(model_dir, 'budget.json')
  if tf.io.gfile.exists(path):
    with files.opened(path, 'r') as f:
      known = json.load(f)
    if known['hours'] != hours:
      raise errors.UserError(
          f'{model_dir} was begun with hours = {known["hours"]}, from which '
          f'its schedule follows, and now it is {hours}: give the same, or '
          'another --model_dir')
    return known['steps']
  rate = _steps_per_second()
  count = int(rate * hours * 3600)
  if count < _MEASURED:
    raise errors.UserError(
        f'mtf_conv.training.train_model.hours (={hours}) is too little: at '
        f'{rate:.3g} steps a second it is {count} steps')
  terminal.say(f'{rate:.3g} steps a second: {count:,} steps in {hours} hours.')
  tf.io.gfile.makedirs(model_dir)
  files.write_whole(path, json.dumps(
      {'hours': hours, 'steps': count, 'steps_per_second': rate}))
  return count


def _steps_per_second():
  """Trains some steps in a fork of this process, and a folder of its own."""
  with tempfile.TemporaryDirectory() as folder:
    process = multiprocessing.get_context('fork').Process(
        target=_train, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
      raise errors.UserError(
          f'the rate of steps could not be measured: exit code '
          f'{process.exitcode}')
    with open(os.path.join(folder, 'progress.json')) as f:
      return json.load(f)['steps_per_second']


def _train(folder):
  with gin.unlock_config():
    for name, value in _BINDINGS.items():
      gin.bind_parameter(name, value)
  os.environ['MTF_CONV_PROGRESS'] = '0'
  utils.run(tpu_job_name=flags.FLAGS.tpu_job_name, tpu=flags.FLAGS.tpu,
            gcp_project=flags.FLAGS.gcp_project, tpu_zone=flags.FLAGS.tpu_zone,
            model_dir=folder)
