"""What is looked at before a run of t5_mesh_conv, once gin is parsed."""

import functools
import inspect
import itertools
import os
import sys

import gin
import seqio
import tensorflow.compat.v1 as tf
import tensorflow_datasets as tfds

from mtf_conv import vocabulary as vocabularies
from mtf_conv.base import autograph, errors, gin_values, terminal
from mtf_conv.model_dir import budget, checkpoints, held_out, record
from mtf_conv.tasks import metrics

_FIRST = 1000  # Examples whose lengths are looked at.


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
    hours = gin_values.bound('mtf_conv.training.train_model.hours')
    if hours and _mode() == 'train':
      bindings = {**(bindings or {}),
                  'utils.run.train_steps': budget.steps(model_dir, hours)}
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
      no task has a metric, one has no example, it was trained with another
      vocabulary, or model_dir cannot be written to.
  """
  pretrained = gin_values.bound('utils.run.init_checkpoint')
  vocabulary = gin_values.bound('run.vocabulary')
  # A run that goes on reads model_dir alone.
  for folder in (model_dir, _folder(pretrained)):
    if vocabulary and folder:
      record.check_vocabulary(folder, vocabulary)
  mode = _mode()
  if mode == 'train':
    bindings = None
    if pretrained:
      prefix = checkpoints.resolved(pretrained)
      checkpoints.require_whole(prefix, 'PRETRAINED')
      bindings = {'utils.run.init_checkpoint': prefix}
      _warn_of_little_learnt(_folder(pretrained))
    _require_writable(model_dir)
    for task in record.tasks_of_run():
      _tell_of_labels(task)
      _tell_of_cuts(task, gin_values.bound('utils.run.sequence_length'))
    return bindings
  _require_metrics()
  if mode == 'perplexity_eval':
    _require_writable(model_dir)
  elif mode.endswith('eval') and not gin_values.bound(
      'utils.run.eval_summary_dir'):
    _require_writable(
        model_dir, ': give --gin_param="utils.run.eval_summary_dir = '
        '\'FOLDER\'" for the answers and scores')
  steps = gin_values.bound('utils.run.eval_checkpoint_step')
  if steps is None:
    terminal.say(
        'utils.run.eval_checkpoint_step (=None) waits for new checkpoints, and '
        'does not end; -1 reads the last one')
  return steps and {'utils.run.eval_checkpoint_step':
                    checkpoints.steps_to_read(model_dir, steps)}


def _mode():
  return gin_values.bound('utils.run.mode') or 'train'  # T5's default.


def _require_writable(model_dir, remedy=''):
  if (model_dir and os.path.isdir(model_dir)
      and not os.access(model_dir, os.W_OK)):
    raise errors.UserError(
        f'--model_dir (={model_dir!r}) cannot be written to{remedy}')


def _require_metrics():
  """Refuses an evaluation that would end without a score."""
  name = gin_values.bound(
      'mtf_conv.evaluation.eval_dataset_fn.mixture_or_task_name')
  mode = gin_values.bound('utils.run.mode')
  if name and mode in ('eval', 'score_eval'):
    mixture = seqio.get_mixture_or_task(name)
    tasks = getattr(mixture, 'tasks', [mixture])
    metric_fns = [fn for task in tasks for fn in task.metric_fns]
    if mode == 'score_eval' and metric_fns and not all(
        'scores' in inspect.signature(fn).parameters for fn in metric_fns):
      raise errors.UserError(
          f"MIXTURE_NAME (={name!r}) has metrics of answers, and mode "
          "'score_eval' needs those of scores: give utils.run.mode = 'eval'; "
          'mtf_conv score ranks classes')
    if not metric_fns:
      raise errors.UserError(
          f'MIXTURE_NAME (={name!r}) has no metric, nothing would be scored: '
          'give a task that has one; pre-training is measured with '
          "utils.run.mode = 'perplexity_eval'")


def _warn_of_little_learnt(folder):
  measured = held_out.read(folder)
  if measured and not held_out.is_below_unigram(measured):
    terminal.say(f'PRETRAINED ({folder}): {held_out.describe(measured)}')


def _tell_of_cuts(task, lengths):
  """Says how many of the first examples are longer than what is read."""
  if not lengths or not task.metric_fns:  # Pre-training cuts on purpose.
    return
  if not isinstance(lengths, dict):
    lengths = dict.fromkeys(('inputs', 'targets'), lengths)
  with tf.Graph().as_default():
    examples = list(itertools.islice(tfds.as_numpy(autograph.avoid(
        functools.partial(task.get_dataset, None, 'train', shuffle=False))),
        _FIRST))
  if not examples:
    raise errors.UserError(f"{task.name} has no example in its split 'train'")
  for feature in sorted(task.output_features.keys() & lengths.keys()):
    found = [len(example[feature]) for example in examples]
    limit = lengths[feature]
    longer = sum(length > limit for length in found)
    if longer:
      terminal.say(
          f'{task.name}: {longer} of the first {len(found)} {feature} have '
          f'more than {limit} tokens (up to {max(found)}) and are cut: '
          'utils.run.sequence_length says how long they may be')


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
