"""What is looked at before a run of t5_mesh_conv, once gin is parsed."""

import os
import sys

import gin
import seqio
import tensorflow.compat.v1 as tf

from mtf_conv import vocabulary as vocabularies
from mtf_conv.base import errors, gin_values, terminal
from mtf_conv.model_dir import checkpoints, held_out, record
from mtf_conv.tasks import metrics


def check_on_finalize(model_dir, only=False):
  """Has gin call `check` when it has parsed all of a run's bindings.

  Args:
    model_dir: of the run.
    only: whether the process ends when nothing wrong was found.
  """
  def hook(unused_config):
    bindings = check(model_dir)
    if only:
      terminal.say(f'{model_dir}: nothing wrong was found.')
      sys.exit(0)
    return bindings

  gin.config.register_finalize_hook(hook)


def check(model_dir):
  """Looks at the checkpoints that a run is going to read, and at its labels.

  A checkpoint to be fine-tuned must be whole. One to be evaluated is skipped
  where it is cut short, unless it was asked for by its step. Both must have
  been trained with the vocabulary of the run. Whoever trains on labels that
  the vocabulary cannot write is told, and goes on.

  Args:
    model_dir: of the run.

  Returns:
    gin bindings: the checkpoint to be fine-tuned, the steps to be evaluated.

  Raises:
    errors.UserError: a checkpoint that was asked for cannot be read, none can,
      no task has a metric, or it was trained with another vocabulary.
  """
  pretrained = gin_values.bound('utils.run.init_checkpoint')
  vocabulary = gin_values.bound('run.vocabulary')
  # A run that goes on reads model_dir alone.
  for folder in (model_dir, _folder(pretrained)):
    if vocabulary and folder:
      record.check_vocabulary(folder, vocabulary)
  if gin_values.bound('utils.run.mode') == 'train':
    bindings = None
    if pretrained:
      prefix = checkpoints.resolved(pretrained)
      checkpoints.require_whole(prefix, 'PRETRAINED')
      bindings = {'utils.run.init_checkpoint': prefix}
      _warn_of_little_learnt(_folder(pretrained))
    for task in record.tasks_of_run():
      _tell_of_labels(task)
    return bindings
  _require_metrics()
  steps = gin_values.bound('utils.run.eval_checkpoint_step')
  return steps and {'utils.run.eval_checkpoint_step':
                    checkpoints.steps_to_read(model_dir, steps)}


def _require_metrics():
  """Refuses an evaluation that would end without a score."""
  name = gin_values.bound(
      'mtf_conv.evaluation.eval_dataset_fn.mixture_or_task_name')
  if name and gin_values.bound('utils.run.mode') == 'eval':
    mixture = seqio.get_mixture_or_task(name)
    tasks = getattr(mixture, 'tasks', [mixture])
    if not any(task.metric_fns for task in tasks):
      raise errors.UserError(
          f'MIXTURE_NAME (={name!r}) has no metric, nothing would be scored: '
          'give a task that has one; pre-training is measured with '
          "utils.run.mode = 'perplexity_eval'")


def _warn_of_little_learnt(folder):
  measured = held_out.read(folder)
  if measured and not held_out.is_below_unigram(measured):
    terminal.say(f'PRETRAINED ({folder}): {held_out.describe(measured)}')


def _tell_of_labels(task):
  """Says which labels of a task no model with its vocabulary can answer."""
  labels = metrics.labels_of(task)
  changed = vocabularies.changed(
      task.output_features['targets'].vocabulary, labels)
  if changed:
    label, other = next(iter(changed.items()))
    terminal.say(
        f'The vocabulary cannot write {len(changed)} of {len(labels)} labels '
        f'of {task.name} ({label!r} comes back as {other!r}): no answer with '
        'them is ever right')


def _folder(checkpoint):
  """Returns the folder of a checkpoint, which is one itself or a prefix."""
  if checkpoint and not tf.io.gfile.isdir(checkpoint):
    return os.path.dirname(checkpoint)
  return checkpoint
