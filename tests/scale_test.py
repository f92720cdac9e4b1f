"""What a core of a TPU slice holds, computes and sends."""

import math
import os
import re

import mesh_tensorflow as mtf
import numpy as np
import pandas as pd
import pytest
import tensorflow.compat.v1 as tf

from mtf_conv import cli, hardware
from mtf_conv.base import command_line, errors
from mtf_conv.measure import counting, graph, models
from mtf_conv.measure.tpu import core, fit
from mtf_conv.pages import scale
from mtf_conv.replicate import paper

SHORT = dict(inputs=16, targets=8, bindings=['num_layers = 1'])
DOCS = os.path.join(os.path.dirname(os.path.dirname(__file__)), 'docs')


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch):
  """The tests that follow may want to see what is logged."""
  monkeypatch.setattr(command_line, 'quiet', lambda: None)


def path_of(name):
  path, = models.resolve(name)
  return path


@pytest.fixture(scope='module')
def page():
  with open(os.path.join(DOCS, 'scale.md')) as f:
    return f.read()


@pytest.fixture(scope='module')
def figures():
  return pd.read_csv(os.path.join(DOCS, 'scale.csv')).set_index(
      ['model', 'topology'])


# The program of one core.


@pytest.mark.parametrize('model', [
    'dynamicconv.tiny', pytest.param('transformer.tiny',
                                     marks=pytest.mark.slow)])
def test_counts_are_those_of_a_lowering_on_several_devices(model):
  work = core.Step(path_of(model), 3, **SHORT).work(2)
  models.parse([path_of(model)], [*models.AS_ON_TPU, *SHORT['bindings']])
  with graph.Builder() as builder:
    _, gradients = models.training(
        builder, 2 * 3, SHORT['inputs'], SHORT['targets'],
        variable_dtype=core.TPU_DTYPE)
    models.optimize(builder, gradients)
    counters = builder.lower(mtf.placement_mesh_impl.PlacementMeshImpl(
        mtf.convert_to_shape('batch:2,model:2'),
        mtf.convert_to_layout_rules(core.LAYOUT), [''] * 4)).counters

  def counted(name):
    return sum(value for key, value in counters if key.startswith(name))

  assert counted('einsum') - counted('einsum_unique') == 4 * sum(
      part.multiply_adds for part in work)
  for axis, dim in enumerate(['batch', 'model']):
    # Mesh TensorFlow does not count the sums of which a maximum is composed.
    found = 4 * sum(elements for part in work for (dims, _), elements
                    in part.allreduces.items() if dims == (dim,))
    expected = counted(f'allreduce/[{axis}]')
    assert expected <= found < expected + 1000 * (dim == 'model') + 1


@pytest.mark.parametrize('model_parallelism', [1, 2])
def test_other_replicas_change_nothing(model_parallelism):
  two, four = (core.Step(path_of('lightconv.tiny'), 2, replicas=replicas,
                         **SHORT) for replicas in (2, 4))
  assert two.memory(model_parallelism) == four.memory(model_parallelism)
  assert two.work(model_parallelism) == four.work(model_parallelism)


def test_gradients_are_summed_once_in_a_step():
  step = core.Step(path_of('lightconv.tiny'), **SHORT)
  microbatch, optimizer = step.work()
  # The loss, and filters, whose softmax needs the whole gradient.
  assert sum(microbatch.allreduces.values()) < 100
  assert {dims for dims, _ in optimizer.allreduces} == {('batch',)}
  assert sum(microbatch.plus(optimizer).allreduces.values()) == (
      step.parameters + 1)


def test_work_grows_with_the_microbatch_that_of_the_optimizer_does_not():
  one, two = (core.Step(path_of('lightconv.tiny'), n, **SHORT).work()
              for n in (1, 2))
  assert one[1] == two[1]
  assert two[0].multiply_adds == pytest.approx(
      2 * one[0].multiply_adds, rel=1e-3)


# Memory.


def test_variables_are_as_counted_before():
  found = core.Step(path_of('lightconv.mini'), 1, 16, 8).memory()
  counted = counting.size(path_of('lightconv.mini'))
  assert found.parameters == 4 * counted['parameters']
  assert (found.parameters + found.slots) / 2**20 == pytest.approx(
      counted['megabytes'])


def test_a_model_axis_splits_variables():
  step = core.Step(path_of('lightconv.tiny'), **SHORT)
  one, four = (step.memory(n) for n in (1, 4))
  # Norms and filters are on every core.
  assert one.parameters / 4 < four.parameters < 1.05 * one.parameters / 4


@pytest.mark.parametrize('model', ['transformer.tiny', 'dynamicconv.tiny'])
def test_memory_of_more_sequences_is_that_of_a_larger_graph(model):
  one, three = (core.Step(path_of(model), n, **SHORT) for n in (1, 3))
  assert one.memory(sequences=3) == three.memory()
  assert one.memory(2, 2, 3) == three.memory(2, 2)


def test_tensors_live_until_their_last_use():
  dim, other = mtf.Dimension('n', 8), mtf.Dimension('m', 8)
  with graph.Builder() as builder:
    x = builder.tensor(np.ones(8, 'float32'), [dim])
    a = mtf.relu(x)
    b = mtf.sqrt(a)
    c = mtf.replace_dimensions(a, dim, other)
    mtf.reduce_sum(c)
    mtf.relu(b)
    live, fused = (core.live_bytes(
        builder.graph.operations, lambda t: 4 * t.shape.size,
        lambda op, names=names: not op.name.startswith(names))
                   for names in ('reshape', ('reshape', 'sqrt')))
  # x; x and a; a and b; the same, as c is a; and a number; b and the last.
  assert live == [32, 64, 64, 64, 68, 64]
  # a lives on for the last, where b is computed.
  assert fused == [32, 64, 32, 32, 36, 64]


def test_several_microbatches_keep_their_gradients():
  step = core.Step(path_of('lightconv.tiny'), **SHORT)
  more = step.memory(1, 2, 512).rest - step.memory(1, 1, 512).rest
  assert more == 2 * step.parameters  # bfloat16


# Whether it fits.


V3_8 = hardware.topology('v3-8')


def small(memory):
  """v3-8 with so much memory."""
  return V3_8._replace(memory=int(memory))


def test_the_microbatch_that_fits():
  light = path_of('lightconv.tiny')
  found = fit.fit(light, V3_8, tokens=None)
  assert (found.sequences, found.microbatches, found.most) == (16, 1, 16)
  tight = fit.fit(light, small(found.memory.total - 1), 1, tokens=None)
  assert not tight.fits and tight.most == 8
  with pytest.raises(errors.UserError, match='lightconv.tiny needs .* GiB of '
                     'the .* TOKENS_PER_MICROBATCH = 4096 fits$'):
    fit.check(tight)
  assert fit.fit(light, small(found.memory.total - 1), 1, tokens=4096).fits


def test_a_model_that_only_fits_when_it_is_split():
  light = path_of('lightconv.tiny')
  one = fit.fit(light, V3_8, 1, tokens=512)
  two = fit.fit(light, V3_8, 2, tokens=512)
  room = small((one.memory.total + two.memory.total) / 2)
  with pytest.raises(errors.UserError, match='MODEL_PARALLELISM = 2 and '
                     'TOKENS_PER_MICROBATCH = 512 fit$'):
    fit.check(fit.fit(light, room, 1, tokens=512))
  assert fit.fit(light, room, tokens=512).model_parallelism == 2
  with pytest.raises(errors.UserError, match='no setting fits$'):
    fit.check(fit.fit(light, small(1), tokens=512))


def test_params_says_that_the_papers_set_up_fits(capsys):
  assert cli.main(['mtf_conv', 'params', 'lightconv.base',
                   '--topology=v3-32']) == 0
  out = capsys.readouterr().out
  assert '32 cores on 16 chips (4x4), 16 GiB a core' in out
  assert ('The set-up of the paper (16 chips, base size, 128 x 512 tokens) '
          'fits.') in out
  row, = (line.split() for line in out.splitlines()
          if line.startswith('lightconv.base'))
  # 208,747,344 parameters of 4 bytes.
  assert row[1:6] == ['v3-32', 'batch:32', '4', '1', '0.778']


def test_the_page_says_what_is_computed(page, figures):
  found = fit.fit(path_of('lightconv.base'), hardware.topology('v3-32'))
  row = figures.loc['lightconv.base', 'v3-32']
  assert row.total == pytest.approx(found.memory.total / 2**30, rel=1e-4)
  section = page[page.index('| base | topology'):page.index('| large |')]
  line, = re.findall(r'\| lightconv \| v3-32 .*', section)
  assert f'{found.memory.total / 2**30:.2f}' in line
  assert f'{found.most * 512}' in line


@pytest.mark.parametrize('flags, line', [
    (['--topology=v3-16'], "did you mean 'v3-32'?"),
    (['--topology=v3-32', '--batch=100'], 'a batch of 96 does'),
    (['--topology=v3-32', '--batch=0'], 'a batch of 32 does'),
    (['--topology=v3-8', '--model_parallelism=8'],
     'model_parallelism (=8) must divide num_heads (=4): 4 does'),
    (['--topology=v3-8', '--lengths', '0'], 'must be at least 1')])
def test_wrong_settings_are_told_in_one_line(capsys, flags, line):
  assert cli.main(['mtf_conv', 'params', 'lightconv.tiny', *flags]) == 1
  out, err = capsys.readouterr()
  assert not out and err.count('\n') == 1 and line in err


def test_what_does_not_fit_is_an_error_after_the_table(capsys, monkeypatch):
  monkeypatch.setattr(hardware, 'topologies', lambda: {'v3-8': small(1.5e8)})
  assert cli.main(['mtf_conv', 'params', 'lightconv.tiny', '--topology=v3-8',
                   '--model_parallelism=1']) == 1
  out, err = capsys.readouterr()
  assert ' NO' in out
  assert err.count('\n') == 1 and 'TOKENS_PER_MICROBATCH = 1024 fits' in err


@pytest.mark.slow
@pytest.mark.parametrize('size', ['tiny', 'mini', 'small', 'base', 'large'])
@pytest.mark.parametrize('kind', paper.MODELS)
def test_every_model_fits_every_topology(kind, size):
  for topology in hardware.topologies('v3').values():
    assert fit.fit(path_of(f'{kind}.{size}'), topology).fits


# What it costs.


@pytest.mark.parametrize('dims, sizes, expected', [
    # Both cores of a chip have a part of one sum: 4 chips, 4 bytes each.
    (['batch'], {'batch': 8, 'model': 1}, (200, 200 * 2 * 3 / 4)),
    # More than 8 cores: float32.
    (['batch'], {'batch': 32, 'model': 1}, (400, 400 * 2 * 15 / 16)),
    # The cores of a chip have different parts of the model.
    (['batch'], {'batch': 16, 'model': 2}, (400, 2 * 400 * 2 * 15 / 16)),
    (['model'], {'batch': 16, 'model': 2}, (200, 0)),
    (['model'], {'batch': 8, 'model': 4}, (200, 200)),
    (['batch', 'model'], {'batch': 16, 'model': 2}, (400, 400 * 2 * 15 / 16))])
def test_bytes_of_a_sum(dims, sizes, expected):
  assert scale.allreduce_bytes(
      dims, tf.bfloat16, 100, sizes) == pytest.approx(expected)


@pytest.mark.parametrize('model', [
    'transformer.tiny', pytest.param('dilatedconv.mini',
                                     marks=pytest.mark.slow)])
def test_blocks_add_up_to_the_model(model):
  sizes = 2, 16, 8
  assert scale.step_work(path_of(model), 2, *sizes) == core.Step(
      path_of(model), *sizes).work(2)


def test_microbatches_add_up(monkeypatch):
  microbatch = core.Work(5, 7, 11, {(('model',), tf.bfloat16): 100})
  optimizer = core.Work(1, 2, 3, {(('batch',), tf.bfloat16): 1000})
  monkeypatch.setattr(
      scale, 'step_work', lambda *unused_args: (microbatch, optimizer))
  found = fit.Fit('', V3_8, 2, 16, 512, 114, 2, 2, None, None)
  # Two microbatches, 4 replicas. A chip has both cores of a replica.
  assert scale.cost(found) == scale.Cost(
      2 * (2 * 5 + 1), 2 * 7 + 2, 2 * 11 + 3, 2 * 200 + 2000,
      2 * 2000 * 2 * 3 / 4)


def test_products_are_those_that_params_counts():
  """Of eight cores with a sequence each."""
  light = path_of('lightconv.tiny')
  found = scale.cost(fit.fit(light, V3_8, 1, 8, 64))
  expected = 2 * counting.step_einsum(light, 64)
  assert found.flops == pytest.approx(expected, rel=0.15)
  assert found.flops > expected  # The optimizer's are in it.


def test_hours_of_chips():
  # One exaflop at half of 123 teraflops a second.
  assert scale.chip_hours(1, 0.5) == pytest.approx(1e18 / 61.5e12 / 3600)


def test_the_page_is_of_every_model_and_topology(figures):
  assert set(figures.index) == {
      (f'{kind}.{size}', topology) for kind in paper.MODELS
      for size in ('base', 'large') for topology in hardware.topologies('v3')}
  assert (figures.fits == 'yes').all()


@pytest.mark.slow
@pytest.mark.parametrize('model, topology', [
    ('lightconv.base', 'v3-128'), ('transformer.base', 'v3-512')])
def test_the_page_costs_what_is_computed(model, topology, figures):
  spent = scale.cost(fit.fit(path_of(model), hardware.topology(topology)))
  row = figures.loc[model, topology]
  assert row.teraflops == pytest.approx(spent.flops / 1e12, rel=1e-4)
  assert row.sent_gb == pytest.approx(spent.sent / 1e9, rel=1e-4)


@pytest.mark.slow
def test_the_page_has_the_utilisation_that_is_computed(page):
  assert f'{100 * scale.utilisation():.1f}% of the peak' in page
  assert math.isclose(scale.chip_hours(
      scale.table_2().pretrain_exaflops[0], scale.utilisation()), 12 * 16)
