"""A whole model from a part of it; Figure 1 and decoding that are made of it.

Nothing here compiles: what the compiler would say is made up.
"""

import pages
import pandas as pd
import pytest

from mtf_conv import cli
from mtf_conv.base import command_line, errors
from mtf_conv.measure import counting, graph, models
from mtf_conv.measure.tpu import (
  compiler,
  cut,
  decoding,
  estimates,
  figure1,
  step,
)


def _row(cycles, name, opcode='fusion', times=1, size=1):
  return estimates.Row(cycles, times, size, opcode, name, 'x')


# A part of a model.


@pytest.mark.parametrize('model, sizes, counts', [
    ('lightconv.base', None, (1, 11)), ('transformer.tiny', None, (1, 1)),
    ('dilatedconv.base', [4, 4, 7, 15, 31], (1, 1, 2, 4, 4)),
    ('dilatedconv.tiny', [7, 15], (1, 1))])
def test_a_block_of_every_kind(model, sizes, counts):
  part = cut.cut(f'models/{model}.gin')
  assert part.counts == counts
  assert part.bindings == (f'num_layers = {len(counts)}', *(
      [f'{step.FILTER_SIZES} = {sizes}'] if sizes else []))


def test_parameters_of_the_whole():
  """Biases of relative positions are the first block's alone."""
  path = 'models/transformer.mini.gin'
  models.parse([path], [*models.AS_ON_TPU, *cut.cut(path).bindings])
  with graph.Builder() as builder:
    models.training(builder, 1, 8, 8)
    of_part = sum(v.size for v in builder.graph.trainable_variables)
  assert cut.growth(path) == counting.size(path)['parameters'] / of_part
  assert cut.growth('models/dilatedconv.mini.gin') == 1


def test_the_whole_is_its_blocks():
  rows = [
      _row(1, 'while/body/encoder/block_000/layer_000/LightConv/mul'),
      _row(10, 'while/body/encoder/block_001/layer_000/LightConv/mul', times=2),
      _row(100, 'decoder/block_001/layer_002/DenseReluDense/wi/Einsum'),
      _row(1000, 'encoder/einsum/einsum/Einsum'),
      _row(10**4, 'encoder/block_001/layer_000/x/kernel/adafactor/mul'),
      _row(None, 'decoder/block_001/layer_002/DenseReluDense/wi/x', size=7),
      _row(None, 'all', 'all-reduce', size=9)]
  assert cut.whole(rows, (1, 11), 2.5) == {
      'mixer, encoder': 1 + 10 * 2 * 11, 'FFN': 1100, 'embeddings': 1000,
      'optimizer': 25000, 'not_estimated_bytes': 77}


# Figure 1.


def test_as_many_tokens_at_any_length():
  assert [figure1.sequences(65536, n, 32) for n in (64, 512, 2048)] == [
      1024, 128, 32]
  assert figure1.sequences(65536, 4096, 32) == 32  # One on each replica.


@pytest.fixture
def compiled(monkeypatch):
  """Of a program that takes 940,000 cycles, and of the Transformer twice that.

  At 128 inputs the compiler refuses the Transformer.
  """
  monkeypatch.setattr(cut, 'growth', lambda path: 2)

  def compile_step(path, wanted, cache, module_import, say, bound):
    del cache, module_import, say
    assert bound == cut.cut(path).bindings
    is_transformer = 'transformer' in path
    if is_transformer and wanted.inputs == 128:
      raise errors.UserError('v3:4x4: RESOURCE_EXHAUSTED')
    return compiler.Compiled('', 'TPU v3', 32, 32, *[0] * 6, {}), [
        _row(940_000 * (1 + is_transformer), 'encoder/einsum/einsum/Einsum')]

  monkeypatch.setattr(step, 'compile_step', compile_step)


def test_figure1(compiled, tmp_path):
  said = []
  with pytest.raises(errors.UserError, match='EXHAUSTED'):
    figure1.bench(['transformer', 'lightconv'], lengths=[64, 128],
                  out_dir=tmp_path, say=said.append)
  assert [line for line in said if line.endswith(' of 4')] == [
      f'{number} of 4' for number in (1, 2, 3, 4)]
  figure1.bench(['lightconv'], lengths=[64, 256], out_dir=tmp_path,
                say=said.append)
  frame = pd.read_csv(tmp_path / 'figure1.csv')
  assert sorted(zip(frame.model, frame.inputs)) == [
      ('lightconv.base', 64), ('lightconv.base', 128), ('lightconv.base', 256),
      ('transformer.base', 64)]
  rows = frame.set_index(['model', 'inputs'])
  assert rows.milliseconds['lightconv.base', 64] == 1
  assert rows.examples_per_second['lightconv.base', 64] == 1024 * 1000
  assert rows.examples_per_second['transformer.base', 64] == 1024 * 500
  assert rows.batch['lightconv.base', 256] == 256
  assert (tmp_path / 'figure1.png').stat().st_size > 1000
  lines = figure1.to_text(frame[frame.inputs == 64]).splitlines()
  assert lines[1].split() == ['model', 'transformer.base', 'lightconv.base']
  assert lines[-1].split() == ['64', '1.00', '2.00']


def test_the_figure_agrees_with_whole_models():
  folder = pages.ROOT / 'docs' / 'results' / 'tpu'
  figure = pd.read_csv(folder / 'figure1.csv')
  steps = pd.read_csv(folder / 'tpu.csv')
  steps = steps[steps.part == 'whole'].set_index('model').cycles
  assert set(figure.inputs) == set(figure1.LENGTHS)
  same = figure[figure.inputs == 512].set_index('model')
  assert len(same) >= 2
  for model, row in same.iterrows():
    assert row.cycles == pytest.approx(steps[model], rel=0.02)


@pytest.mark.parametrize('args, said', [
    (['--topology=v3-3'], "'v3-3' does not exist"),
    (['--topology=v5e:2x2'], 'the clock of TPU v5e is not published'),
    (['--lengths', '0'], 'length (=0) must be at least 1'),
    (['--tokens=0'], 'tokens (=0) must be at least 1'),
    (['--mesh=batch:64'], "mesh 'batch:64' takes 64 cores"),
    (['--models=lightcon'], "did you mean 'lightconv'?")])
def test_what_is_wrong_is_a_line(args, said, capsys, monkeypatch):
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  assert cli.main(['mtf_conv', 'bench', 'tpu', '--figure1', *args]) == 1
  err = capsys.readouterr().err
  assert said in err and err.count('\n') == 1


@pytest.mark.parametrize('args, said', [
    (['tpu', '--figure1', '--layers=2'], 'tpu --figure1 has no --layers'),
    (['tpu', '--figure1', '--batch=2'], 'tpu --figure1 has no --batch'),
    (['tpu', '--figure1', '--lengths', 'long'], "invalid int value: 'long'"),
    (['op', '--figure1'], 'op has no --figure1')])
def test_flags_that_do_not_go_with_it(args, said, capsys):
  with pytest.raises(SystemExit):
    cli.main(['mtf_conv', 'bench', *args])
  assert said in capsys.readouterr().err


# Decoding.


LOOP = """HloModule program

%inner (t: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %t = (s32[], bf16[8,128]{1,0}) parameter(0)
  %p = bf16[8,128]{1,0} get-tuple-element(%t), index=1
  %f.1 = bf16[8,128]{1,0} fusion(%p), backend_config={"estimated_cycles":"10"}
  ROOT %r = (s32[], bf16[8,128]{1,0}) tuple(%p, %f.1)
}

%condition (u: (s32[], bf16[8,128])) -> pred[] {
  %u = (s32[], bf16[8,128]{1,0}) parameter(0)
  ROOT %not_done = pred[] get-tuple-element(%u), index=0
}

%body (v: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %v = (s32[], bf16[8,128]{1,0}) parameter(0)
  %w = (s32[], bf16[8,128]{1,0}) while(%v), condition=%condition, body=%inner, \
backend_config={"known_trip_count":{"n":"5"}}
  %q = bf16[8,128]{1,0} get-tuple-element(%w), index=1
  %all-reduce.1 = bf16[8,128]{1,0} all-reduce(%q), to_apply=%add
  ROOT %s = (s32[], bf16[8,128]{1,0}) tuple(%q, %q)
}

ENTRY %main (x: bf16[8,128]) -> (s32[], bf16[8,128]) {
  %x = bf16[8,128]{1,0} parameter(0)
  %f.2 = bf16[8,128]{1,0} fusion(%x), backend_config={"estimated_cycles":"7"}
  %start = (s32[], bf16[8,128]{1,0}) tuple(%f.2)
  ROOT %outer = (s32[], bf16[8,128]{1,0}) while(%start), \
condition=%condition, body=%body
}
"""


def test_a_trip_is_told_from_the_rest():
  trip, once = decoding.of_a_trip(LOOP)
  assert [(r.label, r.cycles, r.times) for r in trip] == [
      ('f.1', 10, 5), ('all-reduce.1', None, 1)]
  assert [(r.label, r.cycles, r.times) for r in once] == [('f.2', 7, 1)]
  # What is not known is not known, unless a number is taken.
  assert 'while of unknown trips' in estimates.total(
      estimates.rows(LOOP)).missing
  assert estimates.total(estimates.rows(LOOP, 3)).cycles == 7 + 3 * 50


def test_rows_of_decoding_are_added(tmp_path):
  row = {'model': 'lightconv.base', 'topology': 'v3:4x4', 'mesh': 'batch:32',
         'batch': 64, 'inputs': 512, 'decode_length': 64, 'cycles': 1}
  for other in ({}, {'cycles': 2}, {'decode_length': 512}):
    decoding.add(tmp_path / 'decoding.csv', {**row, **other})
  frame = pd.read_csv(tmp_path / 'decoding.csv')
  assert [*zip(frame.decode_length, frame.cycles)] == [(64, 2), (512, 1)]
