"""What T5 reads and writes as text, put right.

Of mesh-tensorflow 0.1.21 and t5 0.9.4, in inference, scoring and evaluation:

* Off the TPU ids become text in the graph. It comes out as bytes, which are
  written as `b'...'`, and of which scoring ends with an error after all the
  work. On a TPU ids come out, and Python makes text of them. So it is done
  everywhere, but in a model that is exported.
* A file is written line by line under its own name.
* An empty file of inputs is an error, a last line that is blank has no answer,
  a byte order mark reaches the model, and what is not UTF-8 is told without
  file or line.
* Inputs are cut to the sequence length without a word.
* perplexity_eval writes what it found to the log only.
* The model API takes T5's own vocabulary, from its bucket, where gin names no
  task; its default schedule lacks the number of steps; and it trains without
  progress, record and guards.

compat hands the modules to the functions here when they are imported.
"""

import functools
import os
import re

import gin
import numpy as np

from mtf_conv import vocabulary as vocabularies
from mtf_conv.base import files, gin_values, lines, terminal
from mtf_conv.model_dir import checkpoints, record

EOS = 1


def patch_mesh_tensorflow(utils):
  """Puts functions of mesh_tensorflow.transformer.utils right.

  Args:
    utils: the module.
  """
  utils.write_lines_to_file = functools.partial(write_lines, end='\n')
  utils.get_inputs_from_file = read_inputs
  utils.encode_inputs = _encoding(utils.encode_inputs)
  utils.get_estimator = _with_ids(utils.get_estimator)
  utils.export_model = _with_text(utils.export_model)


def patch_t5(utils):
  """Puts functions of t5.models.utils right.

  Args:
    utils: the module.
  """
  utils.write_lines_to_file = functools.partial(write_lines, end='')
  utils.get_vocabulary = _choosing(utils.get_vocabulary)


def patch_model_api(mtf_model):
  """Has t5.models.mtf_model train as gin files have it.

  Args:
    mtf_model: the module.
  """
  # It imports the modules that are patched here, and gin has to know it early.
  from mtf_conv import training
  mtf_model.mtf_utils = _Training(mtf_model.mtf_utils, training.train_model)
  mtf_model.MtfModel.train = _bound(mtf_model.MtfModel.train)


class _Training:
  """mesh_tensorflow's utils with this package's train_model."""

  def __init__(self, utils, train_model):
    self._utils = utils
    self._train_model = train_model

  def __getattr__(self, name):
    return getattr(self._utils, name)

  def train_model(self, estimator, vocabulary, *args, **kwargs):
    """Trains, after a look at the checkpoints that are going to be read."""
    record.check_vocabulary(estimator.model_dir, vocabulary)
    if estimator.init_checkpoint:
      checkpoints.require_whole(estimator.init_checkpoint, 'init_checkpoint')
      record.check_vocabulary(
          os.path.dirname(estimator.init_checkpoint), vocabulary)
    return self._train_model(estimator, vocabulary, *args, **kwargs)


def _bound(train):
  """Has gin know what a training is told, for its schedule and its record."""
  @functools.wraps(train)
  def call(self, mixture_or_task_name, steps, *args, **kwargs):
    schedule = 'learning_rate_schedule_noam.total_train_steps'
    with gin.unlock_config():
      gin.bind_parameter(
          'mesh_train_dataset_fn.mixture_or_task_name', mixture_or_task_name)
      if gin_values.bound(schedule) is None:
        gin.bind_parameter(schedule, steps)
    return train(self, mixture_or_task_name, steps, *args, **kwargs)

  return call


def write_lines(texts, filename, end='\n'):
  """Writes a file of text whole; its folder is made.

  Args:
    texts: an iterable of what is on a line each, bytes as the text they are.
    filename: its path.
    end: what follows the last line.
  """
  folder = os.path.dirname(filename)
  if folder and not files.is_remote(folder):
    os.makedirs(folder, exist_ok=True)
  found = [_text(text).replace('\n', ' ') for text in texts]
  files.write_whole(filename, '\n'.join(found) + (end if found else ''))


def read_inputs(input_filename, ignore_comments=False):
  """Reads a file of inputs: as many as it has lines.

  Args:
    input_filename: its path.
    ignore_comments: whether to leave out lines that begin with `#`.

  Returns:
    A list of strings.

  Raises:
    errors.UserError: it cannot be read; names the line that is not UTF-8.
  """
  return [line.rstrip() for _, line in lines.read(input_filename)
          if not (ignore_comments and line.startswith('#'))]


def _encoding(encode_inputs):
  """Encodes no inputs to no ids; says how many are cut."""
  @functools.wraps(encode_inputs)
  def encode(inputs, vocabulary, model_type, batch_size, sequence_length,
             *args, **kwargs):
    if not inputs:
      return np.zeros((0, sequence_length), np.int32)
    ids = encode_inputs(
        inputs, vocabulary, model_type, batch_size, sequence_length, *args,
        **kwargs)
    last = ids[:len(inputs), -1]
    cut = np.count_nonzero((last != 0) & (last != EOS))
    if cut and model_type != 'lm':
      terminal.say(
          f'{cut} of {len(inputs)} texts are longer than {sequence_length} '
          'tokens and were cut: utils.run.sequence_length says how long they '
          'may be')
    return ids

  return encode


class _Outside:
  """A vocabulary that does not decode in a graph, unless it shall."""

  def __init__(self, vocabulary):
    self._vocabulary = vocabulary
    self.in_graph = False

  def __getattr__(self, name):
    if name.startswith('__') or name == 'decode_tf' and not self.in_graph:
      raise AttributeError(name)
    return getattr(self._vocabulary, name)


def _with_ids(get_estimator):
  """Has predictions be ids."""
  @functools.wraps(get_estimator)
  def get(*args, vocabulary, **kwargs):
    outside = (tuple(map(_Outside, vocabulary))
               if isinstance(vocabulary, tuple) else _Outside(vocabulary))
    estimator = get_estimator(*args, vocabulary=outside, **kwargs)
    estimator.vocabulary = outside
    estimator.init_checkpoint = kwargs.get('init_checkpoint')
    estimator.evaluate = _telling(estimator.evaluate)
    return estimator

  return get


def _telling(evaluate):
  """Has perplexity be said."""
  @functools.wraps(evaluate)
  def call(*args, name=None, **kwargs):
    found = evaluate(*args, name=name, **kwargs)
    step = found.get('global_step')
    for metric, value in sorted(found.items()):
      if re.search('accuracy|perplexity', metric):
        terminal.say(f'{name}/{metric} at step {step}: {value:.3f}')
    return found

  return call


def _with_text(export_model):
  """Has an exported model give text."""
  @functools.wraps(export_model)
  def export(estimator, *args, **kwargs):
    found = estimator.vocabulary
    for each in found if isinstance(found, tuple) else (found,):
      each.in_graph = True
    return export_model(estimator, *args, **kwargs)

  return export


def _choosing(get_vocabulary):
  """Takes this package's vocabulary where neither caller nor gin has a task."""
  @functools.wraps(get_vocabulary)
  def get(mixture_or_task_name=None):
    name = (mixture_or_task_name or gin_values.macro('MIXTURE_NAME')
            or gin_values.bound('mesh_train_dataset_fn.mixture_or_task_name'))
    return (get_vocabulary(name) if name
            else vocabularies.ConfiguredVocabulary())

  return get


def _text(value):
  return value.decode('utf-8', 'replace') if isinstance(
      value, bytes) else str(value)
