"""Parameters, FLOPs and speed: the counts, the checks, the arithmetic."""

import re
import sys

import conv_reference
import forked
import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pandas as pd
import pytest
import stock_t5

from mtf_conv import cli, conv
from mtf_conv.base import command_line, errors, gin_files
from mtf_conv.commands import list as listing
from mtf_conv.measure import counting, graph, models, reference
from mtf_conv.measure.speed import (
  bench,
  block,
  build,
  decode,
  goals,
  op,
  peak_memory,
  plain,
  profile,
  results,
  start,
  step,
  stock,
  timing,
  whole_models,
)


@pytest.fixture(autouse=True)
def keep_tensorflow(monkeypatch):
  """The tests that follow may want TensorFlow as it is."""
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  monkeypatch.setattr(bench, '_start', lambda: None)


def say(unused_case):
  pass


# Counting.


@pytest.mark.parametrize('name, path', [
    (f'{model}.{size}', path) for model, size, _, path in listing.models()
    if size == 'tiny'])
def test_parameters_are_as_the_gin_file_says(name, path):
  stated, = (parameters for model, size, parameters, _ in listing.models()
             if f'{model}.{size}' == name)
  found = counting.size(path)
  assert f'{found["parameters"]:,}' == stated


def test_memory_is_of_parameters_and_slots():
  models.parse(['models/lightconv.mini.gin'])
  with graph.Builder() as builder:
    models.training(builder, 1, 8, 8)
    shapes = [v.shape.to_integer_list
              for v in builder.graph.trainable_variables]
  floats = 0
  for shape in shapes:
    # Adafactor keeps a row and a column of a matrix, all of what is smaller.
    factored = len(shape) == 2 and min(shape) >= 128
    floats += np.prod(shape) + (sum(shape) if factored else np.prod(shape))
  found = counting.size('models/lightconv.mini.gin')
  assert found['megabytes'] == pytest.approx(4 * floats / 2**20)
  assert found['variables'] == len(shapes)


def test_multiply_adds_of_a_product():
  dims = [mtf.Dimension(*d) for d in (('n', 5), ('old', 7), ('new', 11))]
  with graph.Builder() as builder:
    x = builder.tensor(np.ones((5, 7), 'float32'), dims[:2])
    w = builder.tensor(np.ones((7, 11), 'float32'), dims[1:])
    y = mtf.einsum([x, w], reduced_dims=[dims[1]])
    mtf.gradients([y], [x, w], [mtf.ones_like(y)])
    # The product itself, and one for each gradient.
    assert counting.einsum(builder) == 3 * 5 * 7 * 11


def test_multiply_adds_of_a_convolution():
  dims = [mtf.Dimension(*d) for d in (
      ('batch', 2), ('length', 8), ('heads', 4), ('taps', 3))]
  with graph.Builder() as builder:
    x = builder.tensor(np.ones((2, 8, 4), 'float32'), dims[:3])
    w = builder.tensor(np.ones((4, 3), 'float32'), dims[2:])
    conv.local_conv(x, w, [-1, 0, 1], dims[1])
    assert counting.einsum(builder) == 3 * 2 * 8 * 4


def test_multiply_adds_of_a_step_are_those_of_t5_s_vocabulary():
  path = 'models/lightconv.tiny.gin'

  def einsum(*bindings):
    models.parse([path], bindings)
    with graph.Builder() as builder:
      models.training(builder, 1, 16, models.targets_length(16))
      return counting.einsum(builder)

  assert counting.step_einsum(path, 16) == einsum(*stock_t5.STOCK)
  assert counting.step_einsum(path, 16) > einsum(), 'a lookup counts nothing'


def test_targets_are_those_of_span_corruption():
  assert models.targets_length(512) == 114


def test_params(capsys, tmp_path):
  csv = tmp_path / 'params.csv'
  assert cli.main([
      'mtf_conv', 'params', 'transformer.tiny', 'lightconv', '--sizes', 'tiny',
      '--lengths', '64', f'--csv={csv}', f'--figure={tmp_path}']) == 0
  out = capsys.readouterr().out
  assert '2,270,008' in out and '64/14' in out
  frame = pd.read_csv(csv)
  assert list(frame) == ['model', 'parameters', 'variables', 'megabytes',
                         'inputs', 'targets', 'einsum']
  einsum = frame.set_index(['model', 'inputs']).einsum
  assert einsum['transformer.tiny', 64] > einsum['lightconv.tiny', 64] > 0
  assert (tmp_path / 'figure2.csv').read_text() == csv.read_text()
  assert (tmp_path / 'figure2.png').stat().st_size > 1000


@pytest.mark.parametrize('name, nearest', [
    ('lightcon.base', 'lightconv.base'), ('litconv', 'lightconv'),
    ('models/lightconv.bse.gin', 'lightconv.base')])
def test_unknown_models_are_named(capsys, name, nearest):
  assert cli.main(['mtf_conv', 'params', name]) == 1
  err = capsys.readouterr().err
  assert err.count('\n') == 1 and f"did you mean '{nearest}" in err


def test_models_have_several_names(tmp_path):
  path = 'models/lightconv.tiny.gin'
  for name in ('lightconv.tiny', path, 'lightconv'):
    assert models.resolve(name, ['tiny']) == [path]
  own = tmp_path / 'own.gin'
  own.write_text('')
  assert models.resolve(str(own)) == [str(own)]


# Timing.


class Clock:
  """Time passes only where a candidate says so."""

  def __init__(self):
    self.now = 0
    self.calls = []

  def __call__(self):
    return self.now

  def candidate(self, name, *seconds):
    """The n-th call takes the n-th of seconds, in turn."""
    def run():
      self.now += seconds[self.calls.count(name) % len(seconds)]
      self.calls.append(name)
    return run


def test_ratios_are_medians_over_rounds():
  clock = Clock()
  times = timing.interleave(
      {'slow': clock.candidate('slow', 8, 6, 60), 'fast': clock.candidate(
          'fast', 2, 2, 20)}, 0, min_rounds=3, warm_up=1, short=0, clock=clock)
  assert times.median('slow') == 8
  # 3 and 3 and 4: that both were slow for a while does not show.
  assert times.ratio('slow', 'fast') == timing.Ratio(3, 3, 3.5)


def test_rounds_go_on_until_time_is_up():
  clock = Clock()
  timing.interleave({'a': clock.candidate('a', 1)}, 10, min_rounds=2,
                    warm_up=3, clock=clock)
  assert len(clock.calls) == 3 + 10
  clock = Clock()
  timing.interleave({'a': clock.candidate('a', 1)}, 10, max_rounds=4,
                    warm_up=1, clock=clock)
  assert len(clock.calls) == 1 + 4


def test_a_short_candidate_is_called_before_it_is_timed():
  clock = Clock()
  # After the warm-up, the second, fourth and sixth call are timed.
  times = timing.interleave(
      {'a': clock.candidate('a', 1, 5, 3)}, 0, min_rounds=3, warm_up=1,
      short=2, clock=clock)
  assert len(clock.calls) == 1 + 3 * 2
  assert times.median('a') == 3


def test_candidates_take_turns():
  clock = Clock()
  timing.interleave({n: clock.candidate(n, 1) for n in 'abc'}, 0,
                    min_rounds=20, warm_up=1, clock=clock)
  rounds = [''.join(clock.calls[i:i + 3]) for i in range(3, 63, 3)]
  assert all(sorted(r) == list('abc') for r in rounds)
  assert len(set(rounds)) == 6, 'in every order'


@pytest.mark.parametrize('sense, ratio, met', [
    ('<=', 1.5, 'hoped'), ('<=', 2, 'required'), ('<=', 2.1, 'no'),
    ('>=', 2, 'required'), ('>=', 1.9, 'no')])
def test_goals(sense, ratio, met):
  assert goals.Goal(sense, 2, 1.5 if sense == '<=' else 3).met(ratio) == met
  assert goals.Goal(sense, 2).met(ratio) == met.replace('hoped', 'required')


# What is timed is right.


@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.parametrize('packed', [False, True])
def test_reference_is_the_convolution(dynamic, packed):
  rng = np.random.RandomState(0)
  x, dy = rng.randn(2, 2, 7, 6)
  filters = rng.randn(*(2, 7) * dynamic, 3, 5)
  segments = np.array([[1, 1, 2, 2, 2, 3, 0]] * 2) if packed else None
  offsets = [-2, -1, 0, 1, 3]

  def grouped(x):
    return x.reshape(2, 7, 3, 2)

  np.testing.assert_allclose(
      grouped(reference.local_conv(x, filters, offsets, segments)),
      conv_reference.local_conv(grouped(x), filters, offsets, segments))
  dx, dfilters = reference.local_conv_gradients(
      x, filters, offsets, dy, segments)
  expected = conv_reference.local_conv_gradients(
      grouped(x), filters, offsets, grouped(dy), segments)
  np.testing.assert_allclose(grouped(dx), expected[0])
  np.testing.assert_allclose(dfilters, expected[1])


def _check_gradients(fn, x, weights, dy):
  """Compares with differences, in float64."""
  gradients = fn(x, weights)[1]
  rng = np.random.RandomState(1)
  for name in ('x', *weights):
    array = x if name == 'x' else weights[name]
    direction = 1e-5 * rng.randn(*array.shape)

    def value(sign, name=name, array=array, direction=direction):
      moved = array + sign * direction
      y, _ = (fn(moved, weights) if name == 'x' else
              fn(x, {**weights, name: moved}))
      return (y * dy).sum()
    np.testing.assert_allclose(
        (value(1) - value(-1)) / 2, (gradients[name] * direction).sum(),
        rtol=1e-5)


@pytest.mark.parametrize('filters', ['filters', 'wq'])
def test_reference_s_gradients_of_a_block(filters):
  rng = np.random.RandomState(0)
  x, dy = rng.randn(2, 2, 5, 4)
  weights = {name: rng.randn(4, 4) for name in ('wi', 'ws', 'pointwise', 'wo')}
  weights[filters] = rng.randn(*((2, 3) if filters == 'filters' else (4, 6)))
  _check_gradients(lambda x, w: reference.gated_conv(
      x, w, [-1, 0, 1], dy, np.array([[1, 1, 1, 2, 2]] * 2)), x, weights, dy)


@pytest.mark.parametrize('causal', [False, True])
def test_reference_s_gradients_of_attention(causal):
  rng = np.random.RandomState(0)
  x, dy = rng.randn(2, 2, 5, 4)
  weights = {name: rng.randn(4, 4) for name in 'qkvo'}
  _check_gradients(lambda x, w: reference.attention(
      x, w, 2, dy, np.array([[1, 1, 1, 2, 2]] * 2), causal), x, weights, dy)


@pytest.mark.parametrize('groups', [4, 2])
def test_plain_convolution_of_whole_models(groups):
  rng = np.random.RandomState(0)
  dims = [mtf.Dimension(*d) for d in (
      ('batch', 2), ('length', 6), ('heads', 4), ('d_kv', 3))]
  x = rng.randn(2, 6, 4, 3).astype('float32')
  filters = rng.randn(groups, 9).astype('float32')
  segments = np.array([[1, 1, 2, 2, 2, 0]] * 2, 'int32')
  offsets = conv.centred_offsets(9)
  groups_dim = mtf.Dimension('heads' if groups == 4 else 'filters', groups)
  y, grads, _ = harness.run_op(
      lambda x, w, s: plain.local_conv(x, w, offsets, dims[1], s),
      [(x, dims), (filters, [groups_dim, mtf.Dimension('taps', 9)]),
       (segments, dims[:2])])
  flat = x.reshape(2, 6, 12)
  dy = harness.output_weights(x.shape).reshape(flat.shape)
  expected = [reference.local_conv(flat, filters, offsets, segments),
              *reference.local_conv_gradients(
                  flat, filters, offsets, dy, segments)]
  for found, e in zip([y, *grads], expected):
    np.testing.assert_allclose(found.reshape(e.shape), e, atol=1e-5)


def test_a_wrong_result_is_named():
  expected = np.array([1.0, 100.0])
  reference.check('fine', [expected + 1e-4], [expected])
  for wrong in (expected + 1, expected * np.nan):
    with pytest.raises(errors.UserError, match='x: the gradient 1 differs'):
      reference.check('x', [expected, wrong], [expected, expected])


def _shifted(x, filters, offsets, length_dim, segments=None, lowering=None):
  """A convolution that is off by one."""
  return plain.local_conv(
      x, filters, [o + 1 for o in offsets], length_dim, segments)


def test_op_and_block_refuse_a_wrong_result(monkeypatch):
  monkeypatch.setattr(conv, 'local_conv', _shifted)
  with pytest.raises(errors.UserError, match='light k=7: mtf_conv: the value'):
    op.bench(0, tokens=16, d_model=8, say=say)
  with pytest.raises(errors.UserError, match='mtf_conv: the value'):
    block.bench(0, tokens=16, d_model=128, say=say)


def test_a_batch_has_a_row():
  with pytest.raises(errors.UserError, match='input of length 64'):
    step.bench(0, lengths=[64], tokens=32, say=say)


def test_step_refuses_a_wrong_result(monkeypatch):
  args = ('models/lightconv.tiny.gin', 2, 16, 8, 100, ['num_layers = 1'])
  whole_models.training_step(*args, say=say)()
  monkeypatch.setattr(conv, 'local_conv', _shifted)
  with pytest.raises(errors.UserError, match='lightconv N=16: the'):
    whole_models.training_step(*args, say=say)


# From end to end.


def test_decode():
  rows = decode.bench(
      0, lengths=[32, 64], model_lengths=[32], whole_lengths=[4], d_model=128,
      batch=2, size=['num_layers = 1'], whole_size=['num_layers = 1'], say=say)
  names = [row['name'] for row in rows]
  assert names == [
      'decoding, one layer: lightconv N=64 / lightconv N=32',
      'decoding, one layer: lightconv N=32 / attention N=32',
      'decoding, one layer: lightconv N=64 / attention N=64',
      'greedy decoding, batch 1: transformer N=32 / lightconv N=32',
      '4 tokens greedily, mini, 128 inputs, batch 1: transformer / lightconv',
      'greedy decoding, batch 2: transformer N=32 / lightconv N=32',
      '4 tokens greedily, mini, 128 inputs, batch 2: transformer / lightconv']
  assert all(row['ratio'] > 0 for row in rows)


def test_t5_s_own_path():
  rows = stock.bench(0, cases=[('lightconv.tiny', 2, 16, 8, 300)],
                     memory=False, decoding=False, say=say)
  name, limit = rows
  assert name['name'] == (
      "train step, 2 x 16, 384 ids: lightconv.tiny with T5's / lightconv.tiny")
  assert 0 < limit['ratio'] < 2


def test_a_start_ends_with_the_first_step(tmp_path):
  log = tmp_path / 'log.txt'
  pattern = re.compile(r'tf_loss\[')
  program = ('import time; '
             f"open({str(log)!r}, 'w').write('step, tf_loss[7.1][1]'); "
             'time.sleep(60)')
  start.until(pattern, [sys.executable, '-c', program], log)
  assert log.exists()
  log.write_text('')
  with pytest.raises(errors.UserError, match='ended with 0 before'):
    start.until(pattern, [sys.executable, '-c', ''], log)


def test_a_start_is_set_beside_its_goals(monkeypatch):
  monkeypatch.setattr(start, '_run', lambda argv, code=0: None)
  monkeypatch.setattr(start, '_train', lambda: None)
  rows = start.bench(0, rounds=1, say=say)
  assert [(row['name'], row['required']) for row in rows] == [
      ('start-up: first step of lightconv.tiny / import tensorflow', '<= 4'),
      *((f'start-up: seconds of {name}', '<= 0.5') for name in start.ANSWERS)]


def test_commands_answer_as_they_are_timed():
  for argv, code in start.ANSWERS.values():
    start._run(['-m', *argv], code)


def test_a_profile_counts_products_by_kind():
  frame = profile.bench(['lightconv.tiny'], 300, 2, 16, 8, say=say)
  stock_, own = (frame[frame.step == step].set_index('kind').milliseconds
                 for step in frame.step.unique())
  for kind in ('mixer', 'feed-forward', 'logits and loss'):
    assert own[f'{kind}: products'] > 0 and own[kind] > 0
  assert own['embedding'] > 0 and stock_['embedding: products'] >= 0
  assert own['other: products'] == 0


@pytest.mark.slow
def test_no_graph_of_a_convolution_is_larger_than_the_transformer_s():
  rows = build.bench(0, 'tiny', min_rounds=1, say=say)
  assert len(rows) == 9
  for row in rows:
    assert row['name'].endswith(' / transformer')
    if not row['name'].startswith('building'):  # A time, which is not asserted.
      assert row['ratio'] <= 1, row['name']


def test_peak_memory():
  peak = peak_memory.peak(
      'models/lightconv.tiny.gin', 2, 16, 8, 100, ['num_layers = 1'])
  assert 0 < peak < 2**30


def test_figure1(capsys, monkeypatch, tmp_path):
  monkeypatch.setattr(gin_files, 'model_names', lambda size: ['lightconv'])
  cli.main(['mtf_conv', 'bench', 'figure1', '--size=tiny', '--lengths', '16',
            '--tokens=32', '--vocabulary=100', f'--out={tmp_path}'])
  frame = pd.read_csv(tmp_path / 'figure1.csv')
  assert list(frame.model) == ['lightconv']
  assert set(frame.batch) == {2} and set(frame.vocabulary) == {100}
  assert (frame.examples_per_second > 0).all()
  assert (tmp_path / 'figure1.png').stat().st_size > 1000


def test_bench_op(tmp_path):
  done = forked.run('mtf_conv', 'bench', 'op', '--quick', '--tokens=32',
                    '--lowering=slices', f'--out={tmp_path}')
  assert done.returncode == 0 and 'TensorFlow' not in done.stdout, done.stdout
  frame = pd.read_csv(tmp_path / 'op.csv')
  assert list(frame) == [*results.COLUMNS, 'machine']
  # Every goal of this benchmark is measured, and shown.
  asked = {name for name in goals.GOALS
           if name.startswith(('light k', 'dynamic k'))}
  assert len(asked) == 10 and asked <= set(frame.name)
  for name in asked:
    assert name in done.stdout
  with_goal = frame[frame.required.notna()]
  assert set(with_goal.name) == asked
  assert set(with_goal.met) <= {'hoped', 'required', 'no'}
  assert 'light k=7, forward: slices / copy' in set(frame.name)
  assert (frame.low <= frame.ratio).all() and (frame.ratio <= frame.high).all()
  assert 'cores' in frame.machine[0] and 'tensorflow 2' in frame.machine[0]
  assert (tmp_path / 'op.png').stat().st_size > 1000


@pytest.mark.parametrize('args, named', [
    (['opp'], "did you mean 'op'?"),
    (['op', '--size=tiny'], 'op has no --size'),
    (['decode', '--tokens=3'], 'decode has no --tokens')])
def test_wrong_arguments_of_bench(capsys, args, named):
  with pytest.raises(SystemExit):
    cli.main(['mtf_conv', 'bench', *args])
  err = capsys.readouterr().err
  assert err.count('\n') == 1 and named in err
