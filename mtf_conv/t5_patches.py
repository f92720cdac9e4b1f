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
* The model API takes T5's own vocabulary, from its bucket, where gin names no
  task.

compat hands the modules to the functions here when they are imported.
"""

import functools
import os

import numpy as np

from mtf_conv import vocabulary as vocabularies
from mtf_conv.base import files, gin_values, lines, terminal

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
    return estimator

  return get


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
    name = mixture_or_task_name or gin_values.macro('MIXTURE_NAME')
    return (get_vocabulary(name) if name
            else vocabularies.ConfiguredVocabulary())

  return get


def _text(value):
  return value.decode('utf-8', 'replace') if isinstance(
      value, bytes) else str(value)
