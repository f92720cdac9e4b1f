"""What the TPU's compiler says: reading it, keeping it, and being told no.

The programs here are of our own making. Tests that compile need libtpu and are
skipped without it.
"""

import os
import platform
import re
import stat
import textwrap

import pages
import pandas as pd
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.compiler.xla.service import hlo_pb2
from tensorflow.python.compiler.xla import xla
from tensorflow.python.tpu import tpu

from mtf_conv import cli, conv, conv_lowerings, hardware
from mtf_conv.base import command_line, errors
from mtf_conv.measure.tpu import (
  compiler,
  estimates,
  libtpu_worker,
  lowerings,
  program,
  step,
)

SETUP = (pages.ROOT / 'setup.py').read_text()
LOCK = (pages.ROOT / 'run_scripts' / 'tpu_compiler.lock').read_text()


def _fusion(name, cycles, op_name, shape='bf16[8,128]{1,0:T(8,128)(2,1)}',
            operands='%p'):
  return (f'  %{name} = {shape} fusion({operands}), kind=kLoop, '
          f'calls=%fused, metadata={{op_name="{op_name}" source_line=10}}, '
          f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}')


# Loops inside loops, calls, transfers, tuples, both kinds of memory.
PROGRAM = '\n'.join([
    'HloModule program, is_scheduled=true', '',
    '%fused (x: bf16[8,128]) -> bf16[8,128] {',
    '  %x = bf16[8,128]{1,0} parameter(0)',
    '  ROOT %inside = bf16[8,128]{1,0} negate(%x), '
    'backend_config={"estimated_cycles":"999999"}', '}', '',
    '%inner_body (t: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {',
    '  %t = (s32[], bf16[8,128]{1,0}) parameter(0)',
    '  %p = bf16[8,128]{1,0} get-tuple-element(%t), index=1',
    _fusion('f.1', 10, 'while/body/encoder/block_000/layer_000/LightConv/mul'),
    '  ROOT %r = (s32[], bf16[8,128]{1,0}) tuple(%p, %f.1)', '}', '',
    '%inner_condition (t: (s32[], bf16[8,128])) -> pred[] {',
    '  %t.1 = (s32[], bf16[8,128]{1,0}) parameter(0)',
    '  %i = s32[] get-tuple-element(%t.1), index=0',
    '  %limit = s32[]{:T(256)} constant(5)',
    '  ROOT %less = pred[] compare(%i, %limit), direction=LT', '}', '',
    '%body (u: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {',
    '  %u = (s32[], bf16[8,128]{1,0}) parameter(0)',
    '  %p = bf16[8,128]{1,0} get-tuple-element(%u), index=1',
    '  %inner = (s32[], bf16[8,128]{1,0}) while(%u), '
    'condition=%inner_condition, body=%inner_body',
    '  %all-reduce.1 = bf16[8,128]{1,0:T(8,128)} all-reduce(%p), '
    'replica_groups={{0,1}}, to_apply=%add',
    '  ROOT %s = (s32[], bf16[8,128]{1,0}) tuple(%p, %p)', '}', '',
    '%called (v: bf16[8,128]) -> bf16[8,128] {',
    '  %p = bf16[8,128]{1,0} parameter(0)',
    _fusion('f.2', 7, 'decoder/block_001/layer_002/DenseReluDense/wi/Einsum'),
    '}', '',
    'ENTRY %main (p: bf16[8,128]) -> (s32[], bf16[8,128]) {',
    '  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)',
    '  %start = (s32[], /*index=1*/bf16[8,128]{1,0:T(8,128)(2,1)}) tuple(%p)',
    '  %outer = (s32[], bf16[8,128]{1,0}) while(%start), condition=%c, '
    'body=%body, backend_config={"known_trip_count":{"n":"2"}}',
    '  %called.1 = bf16[8,128]{1,0} call(%p), to_apply=%called',
    '  %room = bf16[8,128]{1,0} custom-call(), '
    'custom_call_target="AllocateBuffer"',
    '  %sort.1 = bf16[8,128]{1,0} custom-call(%p), custom_call_target="TopK"',
    _fusion('f.3', 100, 'encoder/block_000/layer_000/LightConv/wo/Einsum',
            '(f32[4,4]{1,0:T(8,128)}, pred[16]{0:T(8)S(1)})', '%p, %p'),
    '  %reshape.1 = f32[64,16]{1,0} reshape(%p), '
    'metadata={op_name="decoder/reduce/Sum"}',
    '  ROOT %end = (s32[], bf16[8,128]{1,0}) tuple(%p, %p)', '}'])


# Reading what the compiler says.


def test_loops_count_as_often_as_they_run():
  rows = estimates.rows(PROGRAM)
  assert [(r.label, r.cycles, r.times) for r in rows] == [
      ('f.1', 10, 2 * 5), ('all-reduce.1', None, 2), ('f.2', 7, 1),
      ('sort.1', None, 1), ('f.3', 100, 1), ('reshape.1', None, 1)]
  assert estimates.total(rows).cycles == 10 * 10 + 7 + 100


def test_what_has_no_estimate_is_named_and_is_not_nothing():
  rows = estimates.rows(PROGRAM)
  assert estimates.total(rows).missing == {
      'all-reduce': 2, 'TopK': 1, 'reshape': 1}
  found = estimates.by_kind(rows)
  assert found['communication'].cycles is None
  assert found['communication'].missing_bytes == 2 * 2 * 2 * 8 * 128
  assert found['mixer, encoder'].cycles == 200
  assert found['FFN'].cycles == 7 and not found['FFN'].missing
  assert found['logits and loss'] == (
      None, 2 * 8 * 128 + 4 * 64 * 16, {'reshape': 1},
      2 * 8 * 128 + 4 * 64 * 16)
  assert sum(s.bytes for s in found.values()) == estimates.total(rows).bytes


def test_bytes_are_of_main_memory_and_each_operand_once():
  row, = [r for r in estimates.rows(PROGRAM) if r.label == 'f.3']
  assert row.bytes == 4 * 4 * 4 + 2 * 8 * 128


def test_a_loop_of_unknown_trips_is_not_known():
  unknown = PROGRAM.replace('{"known_trip_count":{"n":"2"}}', '{}').replace(
      'condition=%c,', 'condition=%inner_condition,').replace(
          'direction=LT', 'direction=NE')
  found = estimates.total(estimates.rows(unknown))
  assert found.cycles == 107
  assert found.missing == {'while of unknown trips': 2, 'fusion': 1,
                           'all-reduce': 1, 'TopK': 1, 'reshape': 1}


@pytest.mark.parametrize('name, kind', [
    ('encoder/block_000/layer_000/LightConv/einsum_3/gradients/einsum/Einsum',
     'mixer, encoder'),
    ('while/body/_1/decoder/block_011/layer_000/SelfAttention/Softmax',
     'mixer, decoder'),
    ('encoder/block_002/layer_000/ours/LongConv/local_conv/mul',
     'mixer, encoder'),
    ('decoder/block_003/layer_001/EncDecAttention/einsum/Einsum',
     'encoder-decoder attention'),
    ('encoder/block_003/layer_001/DenseReluDense/wi/einsum/Einsum', 'FFN'),
    ('encoder/block_000/layer_000/rms_norm/square/gradients/add/Add',
     'norms and residuals'),
    ('encoder/rms_norm/reduce_mean/Sum', 'norms and residuals'),
    ('encoder/einsum/gradients/einsum_1/einsum/Einsum', 'embeddings'),
    ('decoder/einsum/einsum/Einsum', 'embeddings'),
    ('decoder/einsum_4/gradients/einsum_1/einsum/Einsum', 'logits and loss'),
    ('decoder/reduce_logsumexp/reduce/Sum', 'logits and loss'),
    ('decoder/block_000/layer_002/DenseReluDense/wi/kernel/adafactor/mul',
     'optimizer'),
    ('assign_1/parallel_0_2/sub', 'optimizer'),
    ('stacked/encoder/block_000/layer_000/rms_norm/scale/Cast', 'variables'),
    ('to_float_25/Cast_2', 'optimizer'),
    ('to_float_25/XlaCustomCall', 'communication'),
    ('unstack_3/unstack', 'variables'), ('stack_10_1/stack', 'variables'),
    ('XLA_Args', 'variables'), ('', 'other'), ('reshape_7/Slice', 'other')])
def test_kinds(name, kind):
  row = estimates.Row(1, 1, 1, 'fusion', name, 'x')
  assert estimates.kind(row) == kind and kind in estimates.KINDS
  assert estimates.kind(row._replace(opcode='all-gather-start')) == (
      'communication')


# The program.


def _module(text):
  return hlo_pb2.HloModuleProto.FromString(text)


def _translated(function, shape):
  with tf.Graph().as_default() as graph:
    x = tf.placeholder(tf.float32, shape)
    with program.on_tpu(), tf.variable_scope('', use_resource=True):
      y = function(x)
  return program.to_hlo(graph, [x], [y])


@pytest.fixture(scope='module')
def eager():
  if not tf.executing_eagerly():
    pytest.skip('another test has turned TensorFlow 2 off')


def test_transfers_are_those_of_hlo(eager):
  def function(x):
    variable = tf.get_variable('v', [4, 6])
    x = program._Transfers.cross_replica_sum(
        variable.assign_add(x), [[0, 2], [1, 3]])
    return program._Transfers.all_to_all(x, 0, 1, 2, [[0, 2], [1, 3]])

  module = _module(program.with_transfers(_translated(function, [4, 6])))
  found = {i.opcode: i for c in module.computations for i in c.instructions
           if i.opcode in ('all-reduce', 'all-to-all', 'custom-call')}
  assert set(found) == {'all-reduce', 'all-to-all'}
  for instruction in found.values():
    assert [[*g.replica_ids] for g in instruction.replica_groups] == [
        [0, 2], [1, 3]]
  adder, = found['all-reduce'].called_computation_ids
  assert adder in {c.id for c in module.computations}
  ids = [i.id for c in module.computations for i in [c, *c.instructions]]
  assert len(set(ids)) == len(ids)
  root, = [i for c in module.computations for i in c.instructions
           if i.id == c.root_id and c.id == module.entry_computation_id]
  # What is given, and the variable that was assigned to.
  assert [[*s.dimensions] for s in root.shape.tuple_shapes] == [[8, 3], [4, 6]]


def test_the_same_program_is_the_same_bytes(eager):
  built = [program.without_counts(_translated(tf.square, [n]))
           for n in (4, 5, 4)]
  assert built[0] == built[2] != built[1]


def test_bindings_of_fewer_layers():
  assert step.bindings('models/lightconv.base.gin', None) == []
  assert step.bindings('models/lightconv.base.gin', 2) == ['num_layers = 2']
  layers, sizes = step.bindings('models/dilatedconv.base.gin', 3)
  assert layers == 'num_layers = 3'
  assert sizes == 'mtf_conv.layers.DilatedConv.filter_sizes = [4, 15, 31]'


def test_the_block_without_its_convolution(eager):
  """Dynamic filters have a product of their own; static ones leave nothing."""
  sizes = dict(rows=1, length=8, heads=2, d_kv=4)
  for filters, products in (('light', 9), ('dynamic', 12)):
    module = _module(lowerings.build(lowerings.Case(
        filters, 3, 'one', lowerings.PRODUCTS, **sizes)))
    dots = [i for c in module.computations for i in c.instructions
            if i.opcode == 'dot']
    assert len(dots) == products


def test_cases_are_those_that_can_be():
  found = lowerings.cases(taps=[7])
  assert len(set(found)) == len(found)
  names = [c.lowering for c in found if (c.filters, c.segments) == (
      'light', 'several')]
  assert names == ['attention', 'slices', 'band', 'matrix']
  assert sum(c.lowering == 'depthwise' for c in found) == 1


# The rule that conv_lowerings follows on TPUs.

TABLE = pd.read_csv(
    pages.ROOT / 'docs' / 'results' / 'tpu' / 'lowerings.csv',
    keep_default_na=False)
_CASE = [field for field in lowerings.Case._fields if field != 'lowering']


def _cost(row):
  """Cycles, with the bundles of what has no estimate.

  Where these are not known, with what its bytes take at the memory's rate; that
  has to be little.
  """
  if row.not_estimated_bundles != '':
    return row.cycles + float(row.not_estimated_bundles)
  name = row.device.split()[-1]
  least = (row.not_estimated_bytes * compiler.HERTZ[row.device]
           / hardware.topologies(name)[f'{name}-8'].memory_rate)
  assert least < 0.01 * row.cycles
  return row.cycles + least


def _measured():
  chosen_among = TABLE[TABLE.lowering.isin(conv_lowerings.NAMES)]
  return [pytest.param(rows, id='-'.join(map(str, case))) for case, rows in
          chosen_among.groupby(['device', *_CASE]) if len(rows) > 1]


def _chosen(rows):
  case = rows.iloc[0]
  offsets = (conv.causal_offsets if str(case.causal) == 'True'
             else conv.centred_offsets)(case.taps, case.dilation)
  with tf.Graph().as_default(), program.on_tpu():
    return conv_lowerings.fastest(
        tf.zeros([case['rows'], case.length, case.num_filters,
                  case.heads * case.d_kv // case.num_filters],
                 case['dtype']),
        case.filters == 'light', offsets, case.segments == 'several')


@pytest.mark.parametrize('rows', _measured())
def test_the_rule_is_near_the_best_of_the_table(rows):
  costs = {row.lowering: _cost(row) for row in rows.itertuples()}
  assert costs[_chosen(rows)] <= 1.1 * min(costs.values()), costs


def test_the_table_has_what_the_rule_is_about():
  found = {(r.filters, r.segments, r.taps) for r in TABLE.itertuples()}
  assert {(filters, segments, taps) for filters in ('light', 'dynamic')
          for segments in ('one', 'several') for taps in (7, 15, 31)} <= found
  assert len(_measured()) >= 12


def test_a_tpu_is_told_from_other_compilers():
  seen = []

  def look(x):
    def inside(x):
      seen.append(conv_lowerings.on_tpu())
      return x
    tf.function(inside, autograph=False).get_concrete_function(x)
    return inside(x)

  with tf.Graph().as_default():
    look(tf.zeros([2]))
    xla.compile(look, [tf.zeros([2])])
    assert seen == [False] * 4
    tpu.replicate(look, [[tf.zeros([2])]])
    with program.on_tpu():
      look(tf.zeros([2]))
    assert seen[4:] == [True] * 4


# What is kept.


def _environment(folder, versions=compiler.VERSIONS, python='exit 9'):
  """Makes an environment that is as little as is looked for."""
  packages = folder / 'lib' / 'python3.11' / 'site-packages'
  for name, version in versions.items():
    info = packages / f'{name}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
  path = folder / 'bin' / 'python'
  path.parent.mkdir(parents=True)
  path.write_text(f'#!/bin/bash\n{python}\n')
  path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return folder


# Writes what the worker would, and counts how often it is asked.
_WORKER = textwrap.dedent('''\
    task="$(cat)"
    [[ -z "${PYTHONPATH:-}" && "$TPU_SKIP_MDS_QUERY" == 1 ]] || exit 8
    out="$(sed 's/.*"out": "\\([^"]*\\)".*/\\1/' <<<"$task")"
    echo x >>"$COUNT"
    echo text | gzip >"$out/optimized.txt.gz"
    echo '{"device": "TPU v3", "cores": 8, "replicas": 1, "seconds": 2.5,
      "arguments": 10, "outputs": 8, "aliased": 6, "temporaries": 5,
      "code": 1}' >"$out/result.json"''')


@pytest.fixture
def linux(monkeypatch):
  monkeypatch.setattr(platform, 'system', lambda: 'Linux')
  monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')


def test_the_same_program_is_compiled_once(linux, monkeypatch, tmp_path):
  monkeypatch.setenv('COUNT', str(tmp_path / 'count'))
  monkeypatch.setenv('PYTHONPATH', 'ours')
  monkeypatch.setenv(
      compiler.VARIABLE, str(_environment(tmp_path / 'venv', python=_WORKER)))

  def compiled(*args):
    found = compiler.compile_program(*args, cache=tmp_path / 'cache')
    return found, (tmp_path / 'count').read_text().count('x')

  found, count = compiled(b'program', 'v3:2x2', 1)
  assert (found.text, found.device, found.hertz, found.peak, count) == (
      'text\n', 'TPU v3', 940e6, 10 + 5 + 2, 1)
  assert compiled(b'program', 'v3:2x2', 1) == (found, 1)
  for number, other in enumerate([
      (b'another', 'v3:2x2', 1), (b'program', 'v3:4x4', 1),
      (b'program', 'v3:2x2', 2)], 2):
    assert compiled(*other)[1] == number
  # What is there is found without a compiler; another version's is not.
  monkeypatch.setenv(compiler.VARIABLE, str(tmp_path / 'nowhere'))
  assert compiled(b'program', 'v3:2x2', 1) == (found, 4)
  monkeypatch.setitem(compiler.VERSIONS, 'libtpu', '0.0.12')
  with pytest.raises(errors.UserError, match='is not in'):
    compiled(b'program', 'v3:2x2', 1)


@pytest.mark.parametrize('python, said', [
    ('kill -9 $$', r'was killed \(signal 9\) after \d+ s'),
    ('echo INVALID_ARGUMENT: no such thing; exit 3', 'no such thing'),
    ('echo "Traceback ..." >&2; echo "E: why" >&2; exit 1', 'failed: E: why')])
def test_what_is_not_compiled_is_not_kept(
    linux, monkeypatch, tmp_path, python, said):
  monkeypatch.setenv(
      compiler.VARIABLE, str(_environment(tmp_path / 'venv', python=python)))
  with pytest.raises(errors.UserError, match=said) as error:
    compiler.compile_program(b'program', 'v3:2x2', 1, tmp_path / 'cache')
  assert '\n' not in str(error.value)
  assert not list((tmp_path / 'cache').iterdir())


def test_versions_are_written_once_more_each():
  for name, version in compiler.VERSIONS.items():
    assert f'{name}=={version}' in LOCK and f'{name}=={version}' in SETUP
  for line in LOCK.splitlines():
    assert line.startswith('#') or re.fullmatch(r'[\w-]+==[\w.]+', line), line


# What is wrong, in a line.


def _said(capsys, monkeypatch, *args):
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  assert cli.main(['mtf_conv', 'bench', 'tpu', *args]) == 1
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  return err


TINY = ('--models=lightconv', '--size=tiny')


def test_without_the_compiler(linux, capsys, monkeypatch, tmp_path):
  monkeypatch.setenv(compiler.VARIABLE, str(tmp_path / 'none'))
  said = _said(capsys, monkeypatch, *TINY)
  assert f'{tmp_path}/none: run_scripts/tpu_compiler.sh makes it' in said


def test_with_another_version(linux, capsys, monkeypatch, tmp_path):
  monkeypatch.setenv(compiler.VARIABLE, str(_environment(
      tmp_path / 'venv', {**compiler.VERSIONS, 'libtpu': '0.0.17'})))
  said = _said(capsys, monkeypatch, *TINY)
  assert 'has libtpu 0.0.17, and 0.0.11.4 is needed: run_scripts/' in said


@pytest.mark.parametrize('system, machine', [
    ('Linux', 'aarch64'), ('Darwin', 'arm64')])
def test_on_another_machine(system, machine, capsys, monkeypatch):
  monkeypatch.setattr(platform, 'system', lambda: system)
  monkeypatch.setattr(platform, 'machine', lambda: machine)
  assert f'Linux on x86-64, and this is {system} {machine}' in _said(
      capsys, monkeypatch, *TINY)


@pytest.mark.parametrize('args, said', [
    (['--topology=v3-3'], "'v3-3' does not exist"),
    (['--topology=v3.4x4'], "did you mean 'v3:4x4'?"),
    (['--mesh=batch:64'], "mesh 'batch:64' takes 64 cores, and v3:4x4 has 32"),
    (['--mesh=batch64'], '--mesh=batch64'),
    (['--mesh=batch:8,model:4', '--batch=12'], 'a batch of 12 sequences must'),
    (['--mesh=batch:3,model:3'], 'model_parallelism (=3) must divide'),
    (['--layers=0'], 'layers (=0) must be at least 1'),
    (['--models=lightcon'], "did you mean 'lightconv'?")])
def test_wrong_settings(linux, capsys, monkeypatch, tmp_path, args, said):
  monkeypatch.setenv(compiler.VARIABLE, str(tmp_path / 'none'))
  assert said in _said(capsys, monkeypatch, *TINY, *args)


def test_flags_that_are_not_for_it(capsys):
  for args in (['tpu', '--tokens=3'], ['op', '--topology=v3:2x2']):
    with pytest.raises(SystemExit):
      cli.main(['mtf_conv', 'bench', *args])
    assert f'{args[0]} has no --' in capsys.readouterr().err


def test_topologies_have_two_names():
  assert compiler.topology_name('v3-32') == 'v3:4x4'
  assert compiler.topology_name('v4-8') == 'v4:2x2x1'
  assert compiler.topology_name('v9:2x2') == 'v9:2x2'  # libtpu may know it.


def test_what_the_compiler_refuses_is_a_line():
  said = compiler.refusal(
      'v3:4x5', libtpu_worker.REFUSED, 'INVALID_ARGUMENT: Topology layout '
      '"v3:4x5" is not divisible by 2x2x1\n', '', 1)
  assert "did you mean 'v3:4x4'?" in said or "did you mean 'v3:4x8'?" in said
  said = compiler.refusal(
      'v3:4x4', libtpu_worker.REFUSED, 'RESOURCE_EXHAUSTED: XLA:TPU compile '
      'permanent error. Ran out of memory in memory space hbm. Used 20.1G of '
      '16.00G hbm. Exceeded hbm capacity by 4.1G.\n\nTotal hbm usage >= 20.2G:'
      '\n    reserved\n', '', 1)
  assert said.endswith('Exceeded hbm capacity by 4.1G.') and '\n' not in said


def test_what_is_not_built_is_a_line():
  assert program.why_not('a.gin', -9, '').startswith(
      'a.gin: building the step was killed (signal 9)')
  traceback = ('Traceback (most recent call last):\n  File "x"\n'
               'mtf_conv.base.errors.UserError: num_heads (=3) is odd\n'
               "  In call to configurable 'LightConv'\n")
  for stderr, said in ((traceback, 'num_heads (=3) is odd'),
                       ('noise\nValueError: no\n\n', 'ValueError: no')):
    assert program.why_not('a.gin', 1, stderr) == (
        f'a.gin: the step cannot be built: {said}')


def test_tables_say_what_is_not_estimated():
  described = {'topology': 'v3:4x4', 'mesh': 'batch:32', 'batch': 128,
               'inputs': 512, 'device': 'TPU v3'}
  parts = step.to_frame([
      {**described, 'model': model, 'part': part, 'cycles': cycles,
       'not_estimated': missing, 'not_estimated_bytes': 2**20 * bool(missing)}
      for model, whole in (('transformer.base', 94 * 10**6),
                           ('lightconv.base', 47 * 10**6))
      for part, cycles, missing in (
          ('FFN', 10**6, ''), ('communication', None, 'all-reduce:2'),
          ('whole', whole, 'all-reduce:2'))])
  memories = pd.DataFrame([
      {'model': 'lightconv.base', 'inputs': 512, 'arguments': 2**30,
       'temporaries': 2**30, 'peak': 2**31, 'estimated_variables': 2**30,
       'estimated_rest': 2**30, 'estimated_total': 2**31,
       'estimate_over_compiler': 1.0, 'compile_seconds': 100}])
  lines = step.to_text(parts, memories).splitlines()
  rows = {line.split('  ')[0]: line.split()[-1] for line in lines}
  assert rows['FFN'] == '1.00' and rows['whole, ms'] == '50.00'
  assert rows['communication'].endswith('estimated')
  assert rows['Transformer / it'] == '2.00'
  assert sum('no estimate in communication for all-reduce:2 (1.0 MiB'
             in line for line in lines) == 2
  assert any('2048' in line for line in lines)


def test_files(tmp_path):
  described = {'model': 'lightconv.base', 'topology': 'v3:4x4',
               'mesh': 'batch:32', 'batch': 128, 'inputs': 512,
               'device': 'TPU v3', 'not_estimated': '',
               'not_estimated_bytes': 0}
  parts = step.to_frame([
      {**described, 'part': 'FFN', 'cycles': 5},
      {**described, 'part': 'communication', 'cycles': None},
      {**described, 'part': 'whole', 'cycles': 5}])
  step._write(tmp_path, parts, pd.DataFrame([{'model': 'lightconv.base'}]))
  read = pd.read_csv(tmp_path / 'tpu.csv', dtype=str, keep_default_na=False)
  assert [*read.cycles] == ['5', '', '5']
  assert (tmp_path / 'tpu.png').stat().st_size > 1000


# With the compiler.


@pytest.fixture(scope='module')
def libtpu():
  try:
    compiler.python()
  except errors.UserError as error:
    pytest.skip(f'compiles for TPUs: {error}')


def test_a_program_is_compiled(libtpu, eager, tmp_path, monkeypatch):
  # Nothing to ask: whatever is asked over the network fails at once.
  for name in ('http_proxy', 'https_proxy'):
    monkeypatch.setenv(name, 'http://127.0.0.1:9')
  built = lowerings.build(lowerings.Case(
      'light', 3, 'several', 'slices', rows=1, length=16, heads=2, d_kv=8))
  compiled = compiler.compile_program(built, 'v3:2x2', 1, tmp_path)
  assert compiled.device == 'TPU v3' and compiled.cores == 8
  found = estimates.total(estimates.rows(compiled.text))
  assert found.cycles > 100 and found.bytes > 1000
  assert 0 < compiled.arguments < compiled.peak
  with pytest.raises(errors.UserError, match="'v3:9x9' does not exist"):
    compiler.compile_program(built, 'v3:9x9', 1, tmp_path)
  assert len(os.listdir(tmp_path)) == 1


@pytest.mark.slow
def test_bench_tpu(libtpu, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  assert cli.main([
      'mtf_conv', 'bench', 'tpu', '--models=transformer,lightconv',
      '--size=tiny', '--layers=1', '--topology=v3:2x2', '--batch=8',
      '--mesh=batch:2,model:4', '--lengths', '64', f'--out={tmp_path}',
      f'--cache={tmp_path / "cache"}']) == 0
  assert 'not estimated' in capsys.readouterr().out
  frame = pd.read_csv(tmp_path / 'tpu.csv')
  whole = frame[frame.part == 'whole'].set_index('model').cycles
  assert (whole > 10**4).all() and len(whole) == 2
  for model in whole.index:
    parts = frame[(frame.model == model) & (frame.part != 'whole')]
    assert parts.cycles.sum() == whole[model]
    assert {'mixer, encoder', 'FFN', 'optimizer', 'embeddings'} <= set(
        parts.part)
