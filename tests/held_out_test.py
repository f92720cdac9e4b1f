"""Short pre-training: its schedule, and the loss on held-out text."""

import collections
import math
import random
import re

import forked
import gin
import mesh_tensorflow.transformer.utils  # noqa: F401
import mtf_harness as harness
import numpy as np
import pytest
import seqio
import tensorflow.compat.v1 as tf
import tiny_vocabulary
from t5.models import mesh_transformer  # noqa: F401, for gin

from mtf_conv import held_out, tasks, training  # noqa: F401, for the registry
from mtf_conv.base import errors, gin_values
from mtf_conv.model_dir import held_out as in_folder

STEPS = 4


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  """Environment variables: a vocabulary, a text and one to be held out."""
  folder = tmp_path_factory.mktemp('text')
  for name, seeds in (('train', range(60)), ('held', range(60, 80))):
    (folder / f'{name}.txt').write_text('\n\n'.join(
        ' '.join(tiny_vocabulary.words(60, seed)) for seed in seeds))
  return {'MTF_CONV_VOCAB': tiny_vocabulary.write(folder / 'tiny.model'),
          'MTF_CONV_TEXT': str(folder / 'train.txt'),
          'MTF_CONV_TEXT_VALIDATION': str(folder / 'held.txt')}


def _pretrain(folder, text, *bindings, model='lightconv'):
  params = ["MIXTURE_NAME = 'text_span_corruption'", 'INPUTS_LENGTH = 32',
            'num_layers = 1', f'TRAIN_STEPS = {STEPS}',
            "utils.run.batch_size = ('sequences_per_batch', 4)",
            'utils.run.save_checkpoints_steps = 2',
            'mtf_conv.held_out.HeldOutLoss.sequences = 40', *bindings]
  return forked.run(
      't5_mesh_conv', f'--model_dir={folder}',
      f'--gin_file=models/{model}.tiny.gin',
      '--gin_file=runs/pretrain_short.gin', '--gin_file=hardware/cpu.gin',
      *(f'--gin_param={param}' for param in params), **text)


@pytest.fixture(scope='module')
def trained(text, tmp_path_factory):
  folder = tmp_path_factory.mktemp('pretrained')
  done = _pretrain(folder, text)
  assert done.returncode == 0, done.stdout
  return folder, done.stdout


def test_each_checkpoint_is_measured_and_the_end_is_said(trained):
  folder, said = trained
  measured = in_folder.read(folder)
  assert [c['step'] for c in measured['checkpoints']] == [0, 2, 4]
  # Four steps teach nothing.
  assert measured['checkpoints'][-1]['content'] > measured['unigram']
  assert f'{folder}: {in_folder.describe(measured)}' in said
  assert 'The model knows how frequent pieces are, and no more' in said
  assert 'held_out=' in said
  found = collections.defaultdict(dict)
  for path in sorted(folder.glob('events.out.*')):
    for event in tf.train.summary_iterator(str(path)):
      for value in event.summary.value:
        found[value.tag][event.step] = value.simple_value
  for kind in ('content', 'sentinels', 'all'):
    assert found[f'held_out/{kind}'] == pytest.approx(
        {c['step']: c[kind] for c in measured['checkpoints']})
  assert found['held_out/bigram'][4] == pytest.approx(measured['bigram'])


def test_losses_are_those_of_the_checkpoint(trained, text, monkeypatch):
  """Against the log-softmax of teacher-forced logits, in NumPy."""
  folder, _ = trained
  for name, value in text.items():
    monkeypatch.setenv(name, value)
  reader = tf.train.load_checkpoint(str(folder / f'model.ckpt-{STEPS}'))
  lengths = {'inputs': 32, 'targets': 8}
  task = seqio.get_mixture_or_task('text_span_corruption')
  examples = held_out._examples(task, 'validation', lengths, 40)
  inputs, targets = examples['inputs'], examples['targets']
  monkeypatch.setattr(harness.model, 'VOCABULARY', 350)
  with harness.model.Model(
      ['models/lightconv.tiny.gin'], ['num_layers = 1']) as m:
    logits, _ = m.bitransformer.call_simple(
        m.ids(inputs), m.ids(targets), compute_loss=False, mode='eval',
        variable_dtype=m.variable_dtype)
    logits, = m.run([logits], {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()})
  logits = logits.astype(float)
  losses = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(
      logits, targets[..., None], -1)[..., 0]
  content = (targets > 1) & (targets < 250)
  other = (targets == 1) | (targets >= 250)
  assert content.sum() > 100 and other.sum() > 40
  last = in_folder.read(folder)['checkpoints'][-1]
  assert last['content'] == pytest.approx(losses[content].mean(), rel=1e-5)
  assert last['sentinels'] == pytest.approx(losses[other].mean(), rel=1e-5)
  assert last['all'] == pytest.approx(
      losses[content | other].mean(), rel=1e-5)


def test_a_training_that_goes_on_measures_what_is_new(trained, text):
  folder, _ = trained
  before = in_folder.read(folder)
  in_folder.write(folder, {**before, 'unigram': 1.25})  # Not counted again.
  done = _pretrain(folder, text, 'TRAIN_STEPS = 6')
  assert done.returncode == 0, done.stdout
  after = in_folder.read(folder)
  assert after['unigram'] == 1.25
  assert [c['step'] for c in after['checkpoints']] == [0, 2, 4, 6]
  assert after['checkpoints'][:2] == before['checkpoints'][:2]
  in_folder.write(folder, before)


def test_the_rate_of_steps_is_measured(text, tmp_path):
  done = _pretrain(tmp_path / 'new', text, 'TRAIN_HOURS = 1e-7')
  assert done.returncode == 1
  assert re.search(r'hours \(=1e-07\) is too little: at [\d.]+ steps a second '
                   'it is 0 steps', done.stdout)
  assert not list((tmp_path / 'new').glob('*ckpt*'))


def test_pretrained_of_another_model_is_refused(trained, text, tmp_path):
  folder, _ = trained
  done = _pretrain(tmp_path, text, f"utils.run.init_checkpoint = '{folder}'",
                   model='transformer')
  assert done.returncode == 1
  refusal, _ = done.stdout.strip().splitlines()[-2:]
  found = re.match(
      r'PRETRAINED \((\S+)\): (\d+) of (\d+) variables are in it, (\d+) are '
      r'not: \S*SelfAttention\S*, .*\. It is of another model \(LightConv, '
      r'1\+1 blocks, .*\); mtf_conv\S*partial_checkpoint = True would', refusal)
  assert found and found[1].startswith(f'{folder}/model.ckpt-')
  there, whole, missing = map(int, found.groups()[1:])
  assert 0 < there < whole == there + missing
  assert not list(tmp_path.glob('model.ckpt-*'))


@pytest.mark.parametrize('partial', [False, True])
def test_how_much_of_a_model_is_in_a_checkpoint(partial, tmp_path, capfd):
  def variables(*names):
    for name in names:
      tf.get_variable(name, [2])
  with tf.Graph().as_default(), tf.Session() as session:
    variables('a', 'b', 'a_slot_v')
    session.run(tf.global_variables_initializer())
    prefix = tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'), 1)
  guard = training.PretrainedGuard(prefix, partial)
  with tf.Graph().as_default():
    variables('a', 'b', 'b_slot_v')
    guard.begin()
    assert capfd.readouterr().err == (
        f'PRETRAINED ({prefix}): 2 of 2 variables are in it.\n')
    variables('c')
    if partial:
      guard.begin()
      assert capfd.readouterr().err == (
          f'PRETRAINED ({prefix}): 2 of 3 variables are in it, 1 are not: c. '
          'Those begin at random.\n')
    else:
      with pytest.raises(errors.UserError, match='1 are not: c. It is of ano'):
        guard.begin()
  with tf.Graph().as_default():
    variables('a')
    if partial:
      guard.begin()
      assert capfd.readouterr().err == (
          f'PRETRAINED ({prefix}): 1 of 1 variables are in it, 1 of its own '
          'are not in the model: b.\n')
    else:
      with pytest.raises(errors.UserError, match='would leave these out'):
        guard.begin()
    variables('e')
    gin.parse_config(
        "utils.tpu_estimator_model_fn.init_variable_filter = '^a'")
    guard.begin()
    gin.clear_config()
    assert capfd.readouterr().err == (
        f'PRETRAINED ({prefix}): 1 of 1 variables are in it. 1 others are not '
        'to be read from it and begin at random.\n')
  with tf.Graph().as_default(), pytest.raises(
      errors.UserError, match='0 of 1 variables are in it'):
    variables('d')
    guard.begin()
  with tf.Graph().as_default(), pytest.raises(
      errors.UserError, match=r'another model .*: b is \[2\], not \[3\]'):
    variables('a')
    tf.get_variable('b', [3])
    guard.begin()


def test_weights_that_have_diverged_are_not_saved(text, tmp_path):
  bindings = ['utils.run.save_checkpoints_steps = 1',
              'mtf_conv.training.train_model.held_out = None']
  done = _pretrain(tmp_path, text, *bindings, 'PEAK_LEARNING_RATE = 1e30')
  assert done.returncode == 1
  said = done.stdout.strip().splitlines()
  assert ('weights are not numbers after step 2, or beyond 1e+10, and are not '
          'saved: lower the learning rate') in said[-2]
  last = tf.train.latest_checkpoint(str(tmp_path))
  reader = tf.train.load_checkpoint(last)
  for name in reader.get_variable_to_shape_map():
    assert (np.abs(reader.get_tensor(name)) < 1e10).all(), name
  again = _pretrain(tmp_path, text, *bindings)
  assert again.returncode == 0, again.stdout
  assert 'goes on at step 1.' in again.stdout


def test_fine_tuning_from_little_learnt_is_said(trained, tmp_path):
  folder, _ = trained
  from mtf_conv.model_dir import before_run
  said = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(before_run.terminal, 'say', said.append)
    before_run._warn_of_little_learnt(str(folder))
    measured = in_folder.read(folder)
    measured['checkpoints'][-1]['content'] = measured['unigram'] - 0.01
    in_folder.write(tmp_path, measured)
    before_run._warn_of_little_learnt(str(tmp_path))
  line, = said
  assert line.startswith(f'PRETRAINED ({folder}): held-out loss after ')


@pytest.mark.parametrize('split, message', [
    ('test', "text_span_corruption has no split 'test' to hold out: it has "
     'train, validation; without one, set '
     'mtf_conv.training.train_model.held_out = None'),
    ('validation', "text_span_corruption: the split 'validation' is too short "
     'for one sequence of 512 inputs')])
def test_what_cannot_be_measured_is_told(split, message, text, monkeypatch,
                                         tmp_path):
  for name, value in text.items():
    monkeypatch.setenv(name, value)
  short = tmp_path / 'short.txt'
  short.write_text('\n')
  monkeypatch.setenv('MTF_CONV_TEXT_VALIDATION', str(short))
  with pytest.raises(errors.UserError) as error:
    held_out.HeldOutLoss(
        str(tmp_path), seqio.SentencePieceVocabulary(text['MTF_CONV_VOCAB']),
        {'inputs': 512, 'targets': 114}, 'text_span_corruption', split)
  assert str(error.value).startswith(message)


def test_ngram_losses_count_as_a_plain_loop_does():
  rng = random.Random(0)
  size = 7

  def documents(count):
    return [[rng.choice([2, 3, 3, 4, 5, 5, 5, 6]) for _ in range(
        rng.randint(1, 9))] for _ in range(count)]

  train, other = documents(30), documents(10)
  other.append([1, 0, 1])  # Ids that the training text does not have.
  ones = collections.Counter(token for d in train for token in d)
  twos = collections.Counter(pair for d in train for pair in zip(d, d[1:]))
  total = sum(ones.values())

  def piece(token):
    return (ones[token] + 1) / (total + size)

  def after(first, token):
    kinds = len({b for a, b in twos if a == first}) or 1
    count = sum(n for (a, _), n in twos.items() if a == first)
    return (twos[first, token] + kinds * piece(token)) / (count + kinds)

  unigram = [-math.log(piece(token)) for d in other for token in d]
  bigram = [-math.log(after(d[i - 1], token) if i else piece(token))
            for d in other for i, token in enumerate(d)]
  assert held_out.ngram_losses(train, other, size) == pytest.approx(
      (np.mean(unigram), np.mean(bigram)))
  # A distribution: what follows a piece adds up to one.
  assert sum(after(3, token) for token in range(size)) == pytest.approx(1)


def test_the_learning_rate_warms_up_and_ends_at_zero():
  harness.parse_gin(
      ['models/lightconv.tiny.gin', 'runs/pretrain_short.gin'],
      ["MIXTURE_NAME = 'text_span_corruption'", 'TRAIN_STEPS = 1000'])
  peak, *factors = gin_values.bound('utils.run.learning_rate_schedule')

  def rate(step):
    with tf.Graph().as_default(), tf.Session() as sess:
      step = tf.constant(step)
      return peak * np.prod(sess.run([
          factor(step=step, total_train_steps=1000) for factor in factors]))

  assert peak == 0.01
  assert [rate(step) for step in (0, 25, 50, 600, 800, 1000)] == pytest.approx(
      [0, 0.005, 0.01, 0.01, 0.005, 0])


@pytest.mark.parametrize('inputs, density, span, targets', [
    (512, 0.15, 3., 114), (128, 0.15, 3., 29), (64, 0.15, 3., 14),
    (128, 0.3, 5., 61)])
def test_targets_are_as_long_as_the_spans_need(inputs, density, span, targets,
                                               text, monkeypatch):
  for name, value in text.items():
    monkeypatch.setenv(name, value)
  harness.parse_gin(
      ['models/lightconv.tiny.gin', 'objectives/span_3_15.gin'],
      [f'INPUTS_LENGTH = {inputs}', f'NOISE_DENSITY = {density}',
       f'MEAN_SPAN_LENGTH = {span}'])
  lengths = gin_values.bound('utils.run.sequence_length')
  assert lengths == {'inputs': inputs, 'targets': targets}
  task = seqio.get_mixture_or_task('text_span_corruption')
  examples = held_out._examples(task, 'train', lengths, 3)
  # All is used: neither inputs nor targets are padded.
  assert (examples['inputs'] > 0).all() and (examples['targets'] > 0).all()
  noise = (examples['targets'][0] < 250).sum() - 1
  assert noise / (inputs - 1 + noise) == pytest.approx(density, abs=0.06)
