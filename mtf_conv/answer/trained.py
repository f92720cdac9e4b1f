"""What the folder of a run says of its model: all that an answer needs."""

import logging
import os
from typing import NamedTuple

import gin
import mesh_tensorflow.optimize  # noqa: F401, for gin
import mesh_tensorflow.transformer.learning_rate_schedules  # noqa: F401
import mesh_tensorflow.transformer.transformer_layers  # noqa: F401
import seqio
import tensorflow.compat.v1 as tf
from t5.models import mesh_transformer

from mtf_conv import embedding, tasks, vocabulary  # noqa: F401, tasks for the registry
from mtf_conv.base import errors, explain, files, gin_files, gin_values
from mtf_conv.model_dir import checkpoints, record

VOCABULARY = 'vocabulary.model'  # In a folder that was packed.


class Trained(NamedTuple):
  """A trained model.

  Attributes:
    model_dir: its folder.
    checkpoint: the prefix of its weights, such as DIR/model.ckpt-1000.
    vocabulary: a seqio.Vocabulary, of inputs and targets.
    lengths: the tokens of 'inputs' and 'targets' that it was trained with.
  """

  model_dir: str
  checkpoint: str
  vocabulary: seqio.Vocabulary
  lengths: dict[str, int]


def load(model_dir, step=None) -> Trained:
  """Reads a folder, and parses its gin: from then on gin describes its model.

  Args:
    model_dir: the folder of a run.
    step: of the checkpoint; None for the last one that is whole.

  Returns:
    A Trained.

  Raises:
    errors.UserError: the folder lacks something, or the vocabulary that the
      model was trained with is not to be found.
  """
  checkpoint = _checkpoint(model_dir, step)
  _parse(os.path.join(model_dir, 'operative_config.gin'))
  model_type = gin_values.bound('utils.run.model_type') or 'bitransformer'
  if model_type != 'bitransformer':
    raise errors.UserError(
        f'{model_dir} holds a model of the type {model_type!r}: only an '
        "encoder with a decoder ('bitransformer') gives answers here")
  lengths = gin_values.bound('utils.run.sequence_length')
  if isinstance(lengths, int):
    lengths = {'inputs': lengths, 'targets': lengths}
  return Trained(model_dir, checkpoint, _vocabulary(model_dir),
                 dict(lengths or {'inputs': 512, 'targets': 512}))


def _checkpoint(model_dir, step):
  if step is not None:
    prefix = os.path.join(model_dir, f'model.ckpt-{step}')
    checkpoints.require_whole(prefix, '--checkpoint')
    return prefix
  step = checkpoints.steps_to_read(model_dir, -1)
  if step == -1:
    return checkpoints.resolved(model_dir)
  return os.path.join(model_dir, f'model.ckpt-{step}')


def _parse(path):
  """Parses the gin of a run, as T5's model API does."""
  if not tf.io.gfile.exists(path):
    raise errors.UserError(
        f'{path} does not exist: t5_mesh_conv writes it when it trains, beside '
        'the checkpoints, and it says what model they are of')
  gin.clear_config()
  gin.add_config_file_search_path(gin_files.gin_folder())
  root = logging.getLogger()
  level = root.level
  root.setLevel(logging.CRITICAL)  # gin logs each reference that it skips.
  try:
    with gin.unlock_config():
      gin.parse_config_file(
          path, skip_unknown=mesh_transformer.DEPRECATED_GIN_REFERENCES)
      # A model that T5's own binary has trained multiplies with one-hot ids.
      gin.bind_parameter('transformer.get_vocab_embedding_cls.cls',
                         embedding.LookupEmbedding)
  except (ValueError, SyntaxError, ImportError, OSError) as error:
    line = explain.one_line(error) or str(error).partition('\n')[0]
    raise errors.UserError(f'{path} cannot be used: {line}') from error
  finally:
    root.setLevel(level)


def _vocabulary(model_dir):
  """Returns the vocabulary that the model was trained with.

  It lies in the folder, as `mtf_conv pack` has it, or where the record says;
  else it is the one that MTF_CONV_VOCAB names, else the task's: whichever has
  the sum that was recorded.
  """
  starts = record.read(model_dir)
  trained = starts[-1]['vocabulary'] if starts else {}
  if 'path' not in trained:
    found = _of_task()
    record.check_vocabulary(model_dir, found)
    return found
  for find in (lambda: os.path.join(model_dir, VOCABULARY),
               lambda: trained['path'],
               lambda: vocabulary.model_path(download=False),
               lambda: _of_task().sentencepiece_model_file):
    try:
      path = find()
      if files.sha256(path) == trained['sha256']:
        return _sentencepiece(path, trained['size'])
    except (OSError, AttributeError, errors.UserError):
      pass  # There is none.
  raise errors.UserError(
      f'{model_dir} was trained with the vocabulary {trained["path"]} (sha256 '
      f'{trained["sha256"][:12]}), which has changed since or is gone: set '
      'MTF_CONV_VOCAB to a copy of what it was')


def _sentencepiece(path, size):
  pieces = seqio.SentencePieceVocabulary(path).vocab_size
  return seqio.SentencePieceVocabulary(path, extra_ids=size - pieces)


def _of_task():
  """Returns the vocabulary of the task that was trained."""
  name = gin_values.bound('get_vocabulary.mixture_or_task_name')
  if name is None:
    return vocabulary.ConfiguredVocabulary()
  try:
    features = seqio.get_mixture_or_task(name).output_features
  except ValueError as error:
    raise errors.UserError(
        f'unknown task {name!r}: --module_import its module, since the record '
        'names no file of a vocabulary') from error
  return features['targets'].vocabulary
