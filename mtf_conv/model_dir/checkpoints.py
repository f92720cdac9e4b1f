"""Checkpoints that a crash or a full disk cut short: found, told, skipped.

TensorFlow writes a checkpoint beside its place and moves it there, so that a
killed training leaves none that is cut short. A machine that stops, a disk
that is full or a copy that breaks off can. What TensorFlow then does depends
on the file: it ends with an error of its own, or, when it is the small file
`checkpoint` that names the last one, trains from the start over what is there.

Here a checkpoint counts as whole when its index can be read (TensorFlow checks
its sums), the data files are as long as the index says, and the small weights
in it are numbers: a training that diverged leaves none that is. Large ones are
not read: wrong bytes in a file of the right length are found when it is
restored.
"""

import math
import os
import re

import numpy as np
import tensorflow.compat.v1 as tf

from mtf_conv.base import errors, files, terminal

_SMALL = 100_000  # Numbers of a weight that is looked at.


def defect(prefix):
  """Says why a checkpoint cannot be read.

  Args:
    prefix: its path, such as DIR/model.ckpt-1000.

  Returns:
    One line that names the file, or None for a checkpoint that is whole.
  """
  index = f'{prefix}.index'
  if not tf.io.gfile.exists(index):
    return f'{index} does not exist'
  try:
    reader = tf.train.load_checkpoint(prefix)
  except tf.errors.OpError as error:
    return f'{index} cannot be read ({error.message})'
  dtypes = reader.get_variable_to_dtype_map()
  expected = sum(
      math.prod(shape) * dtypes[name].size
      for name, shape in reader.get_variable_to_shape_map().items())
  found = sum(tf.io.gfile.stat(path).length
              for path in tf.io.gfile.glob(f'{prefix}.data-*'))
  if found < expected:
    return f'{prefix}.data-* is cut short ({found:,} of {expected:,} bytes)'
  for name, shape in sorted(reader.get_variable_to_shape_map().items()):
    if dtypes[name].is_floating and math.prod(shape) <= _SMALL:
      try:
        value = reader.get_tensor(name)
      except tf.errors.OpError as error:
        return f'{prefix}.data-* cannot be read ({error.message})'
      if not np.all(np.isfinite(value.astype(np.float32))):
        return f'{prefix} holds weights that are not numbers ({name})'
  return None


def go_back(model_dir):
  """Makes training go on from the last checkpoint that is whole.

  Each one that is skipped is told in a line. No file is deleted: training
  writes the steps again, over those that were cut short.

  Args:
    model_dir: where it trains.

  Raises:
    errors.UserError: there are checkpoints, but none is whole.
  """
  named = _last_named(model_dir)
  if named and not defect(named):
    if named != tf.train.get_checkpoint_state(model_dir).model_checkpoint_path:
      terminal.say(f'{model_dir} was moved here: going on from {named}.')
      _name_as_last([prefix for step, prefix in _by_step(model_dir).items()
                     if step <= step_of(named)])
    return
  prefixes = _by_step(model_dir)
  if named:
    prefixes = {step: prefix for step, prefix in prefixes.items()
                if step < step_of(named)}
    prefixes[step_of(named)] = named
  elif prefixes:
    terminal.say(f'{model_dir}/checkpoint names no checkpoint: looking for '
                 'the last one.')
  else:
    return
  steps = _whole_steps(model_dir, prefixes)
  _name_as_last([prefixes[step] for step in steps])


def steps_to_read(model_dir, wanted):
  """Which checkpoints get_checkpoint_iterator of T5 shall find.

  Args:
    model_dir: their folder.
    wanted: 'all', -1 for the last one, a step, or a list of steps.

  Returns:
    A list of steps, or a step.

  Raises:
    errors.UserError: the checkpoint that was asked for cannot be read, or none
      can.
  """
  prefixes = _by_step(model_dir)
  if not prefixes:
    raise errors.UserError(f'{model_dir} holds no checkpoint to evaluate')
  if wanted == 'all':
    return _whole_steps(model_dir, prefixes)
  if wanted == -1:
    named = _last_named(model_dir)
    # By its step: T5 would follow a path to where the folder was copied from.
    if named and step_of(named) in prefixes and not defect(named):
      return step_of(named)
    return _whole_steps(model_dir, prefixes)[-1]
  for step in wanted if isinstance(wanted, (list, tuple)) else [wanted]:
    # T5 takes the nearest one.
    require_whole(prefixes[min(prefixes, key=lambda s: abs(s - step))],
                   'utils.run.eval_checkpoint_step')
  return wanted


def require_whole(prefix, parameter):
  """Refuses a checkpoint that cannot be read.

  Args:
    prefix: its path, such as DIR/model.ckpt-1000.
    parameter: what names it, the subject of the error.

  Raises:
    errors.UserError: what is wrong, and another one that is whole.
  """
  problem = defect(prefix)
  if not problem:
    return
  folder = os.path.dirname(prefix)
  whole = [p for p in _by_step(folder).values() if not defect(p)]
  choose = f'; {whole[-1]} is whole' if whole else ''
  raise errors.UserError(f'{parameter}: {problem}{choose}')


def write(prefix, parts):
  """Writes a checkpoint, and names it as the last one of its folder.

  Args:
    prefix: its path, such as DIR/model.ckpt-1000, in a folder of this machine.
    parts: yields dicts of arrays by name; one dict at a time is in memory.
  """
  written = []
  for part in parts:
    written.append(f'{prefix}.part-{len(written)}')
    with tf.Graph().as_default(), tf.Session() as session:
      values = [tf.placeholder(array.dtype, array.shape)
                for array in part.values()]
      save = tf.raw_ops.SaveV2(
          prefix=written[-1], tensor_names=list(part),
          shape_and_slices=[''] * len(part), tensors=values)
      session.run(save, dict(zip(values, part.values())))
  with tf.Graph().as_default(), tf.Session() as session:
    session.run(tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=written, destination_prefix=prefix,
        delete_old_dirs=False))
  _name_as_last([prefix])


def _name_as_last(prefixes):
  """Writes the file `checkpoint`, the last of prefixes as the last one."""
  names = [os.path.basename(prefix) for prefix in prefixes]
  files.write_whole(
      os.path.join(os.path.dirname(prefixes[-1]), 'checkpoint'), ''.join(
          [f'model_checkpoint_path: "{names[-1]}"\n'] +
          [f'all_model_checkpoint_paths: "{name}"\n' for name in names]))


def _whole_steps(model_dir, prefixes):
  """The steps of those that are whole, a line for each that is not."""
  problems = {step: defect(prefix) for step, prefix in prefixes.items()}
  whole = sorted(step for step, problem in problems.items() if not problem)
  if not whole:
    raise errors.UserError(
        f'{model_dir} holds no checkpoint that is whole: '
        f'{problems[max(problems)]}')
  for step in sorted(set(prefixes) - set(whole)):
    terminal.say(f'Skipped: {problems[step]}.')
  return whole


def resolved(path):
  """Returns the prefix of a checkpoint, from it or from its folder."""
  if tf.io.gfile.isdir(path):
    return _last_named(path) or os.path.join(path, 'checkpoint')
  return path


def _last_named(model_dir):
  """The last checkpoint by the file `checkpoint`; None if that is no use.

  The file may hold whole paths, which lead nowhere once a folder was moved, or
  to the folder that it was copied from.
  """
  try:
    state = tf.train.get_checkpoint_state(model_dir)
  except ValueError:  # It is empty.
    return None
  if not state:
    return None
  here = os.path.join(
      model_dir, os.path.basename(state.model_checkpoint_path))
  return here if tf.io.gfile.exists(f'{here}.index') else (
      state.model_checkpoint_path)


def _by_step(model_dir):
  """All checkpoints of a folder: a dict from steps to prefixes, in order.

  A checkpoint counts when its index or any data is there. A folder
  model.ckpt-1000_temp is what a killed training was about to write.
  """
  if not tf.io.gfile.isdir(model_dir):
    return {}
  names = (re.match(r'model\.ckpt-(\d+)\.(index|data-\S+)$', name)
           for name in tf.io.gfile.listdir(model_dir))
  steps = sorted({int(name.group(1)) for name in names if name})
  return {step: os.path.join(model_dir, f'model.ckpt-{step}')
          for step in steps}


def step_of(prefix):
  """Returns the step in a checkpoint's name, 0 if there is none."""
  number = re.search(r'-(\d+)$', prefix)
  return int(number.group(1)) if number else 0
