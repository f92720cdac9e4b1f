"""Topologies as data, and meshes that a model divides over."""

import re

import gin
import mtf_harness as harness
import pytest

from mtf_conv import hardware
from mtf_conv.base import errors, explain


def mesh(hardware_gin, *bindings, model='transformer.base', run='pretrain'):
  """What utils.run gets as mesh_shape, as {dimension: size}."""
  harness.parse_gin(
      [f'models/{model}.gin', 'objectives/span_3_15.gin', f'runs/{run}.gin',
       hardware_gin], ["MIXTURE_NAME = 'x'", *bindings])
  gin.finalize()
  from mesh_tensorflow.transformer import utils  # noqa: F401
  shape = gin.get_configurable(
      f'mtf_conv.hardware.{hardware_gin[9:12]}_mesh')()
  return {dim.name: dim.size for dim in shape.dims}


def test_topologies_are_what_their_names_say():
  known = hardware.topologies()
  assert list(hardware.topologies('v3')) == [
      'v3-8', 'v3-32', 'v3-64', 'v3-128', 'v3-256', 'v3-512']
  for name, topology in known.items():
    generation, number = name.split('-')
    # Its maker counts two cores a chip, TensorFlow sees those of v4 as one.
    assert int(number) == 2 * topology.chips
    assert topology.cores == topology.chips * (1 if generation == 'v4' else 2)
  assert (known['v4-32'].chips, known['v4-32'].shape) == (16, '2x2x4')
  assert known['v2-8'].memory * 4 == known['v4-8'].memory == 32 * 2**30
  # The paper's 16 chips, of 16 GiB and 61.5 teraflops a core.
  paper = known['v3-32']
  assert (paper.chips, paper.memory, paper.flops) == (16, 16 * 2**30, 61.5e12)


@pytest.mark.parametrize('generation', ['v2', 'v3', 'v4'])
def test_figures_are_those_of_the_source(generation):
  data = hardware._generations()[generation]
  source = data['source'].replace(',', '')
  figures = r'(\d+) teraflops \(bf16\) (\d+) GiB and (\d+) GBps a chip'
  teraflops, gib, rate = map(int, re.search(figures, source).groups())
  cores = data['cores_per_chip']
  assert cores * data['flops_per_core'] == teraflops * 1e12
  assert cores * data['bytes_per_core'] == gib * 2**30
  assert cores * data['hbm_bytes_per_second_per_core'] == rate * 1e9
  pod = re.search(r'pod of (\d+) chips ([\d.]+) (TB|PB)/s', source)
  links = re.search(r'four links of (\d+) Gbit/s', source)
  assert data['allreduce_bytes_per_second_per_chip'] == pytest.approx(
      float(pod[2]) * {'TB': 1e12, 'PB': 1e15}[pod[3]] / int(pod[1]) if pod
      else 4 * int(links[1]) * 1e9 / 8, rel=0.01)


@pytest.mark.parametrize('name, nearest', [
    ('v3-16', 'v3-32'), ('v3-31', 'v3-32'), ('v3-7', 'v3-8'),
    ('v3-4096', 'v3-512'), ('v33-2', 'v3-32'), ('v3_64', 'v3-64'),
    ('v4-24', 'v4-32'), ('v2-64', 'v2-128')])
def test_unknown_topologies_are_named_with_the_nearest(name, nearest):
  with pytest.raises(errors.UserError) as error:
    hardware.topology(name)
  message = str(error.value)
  assert repr(name) in message and '\n' not in message
  assert message.endswith(f'; did you mean {nearest!r}?')


@pytest.mark.parametrize('name', ['v5e-16', 'v5litepod-16', 'v5p-8', 'v6e-8'])
def test_a_tpu_that_t5_cannot_use_is_refused(name):
  with pytest.raises(errors.UserError) as error:
    hardware.topology(name)
  assert str(error.value) == (
      f'T5 cannot train on TPU {name.split("-")[0]}: its images speak to it '
      'through PJRT alone, where TPUEstimator crashes '
      '(tensorflow/tensorflow#90807): take one of v2, v3, v4, such as v4-32')


@pytest.mark.parametrize('topology, model, expected', [
    ('v2-32', 1, {'batch': 32}), ('v4-32', 1, {'batch': 16}),
    ('v4-32', 4, {'batch': 4, 'model': 4}),
    ('v3-8', 1, {'batch': 8}), ('v3-32', 1, {'batch': 32}),
    ('v3-32', 4, {'batch': 8, 'model': 4}),
    ('v3-512', 4, {'batch': 128, 'model': 4})])
def test_tpu_mesh(topology, model, expected):
  assert mesh('hardware/tpu.gin', f"TPU_TOPOLOGY = '{topology}'",
              f'MODEL_PARALLELISM = {model}') == expected


def test_the_papers_topology_is_the_default():
  assert mesh('hardware/tpu.gin') == {'batch': 32}


def test_t5s_own_bindings_are_heard():
  assert mesh('hardware/tpu.gin', 'utils.tpu_mesh_shape.model_parallelism = 2',
              ) == {'batch': 16, 'model': 2}


@pytest.mark.parametrize('gpus, model, expected', [
    (1, 1, {'batch': 1, 'model': 1}), (8, 2, {'batch': 4, 'model': 2})])
def test_gpu_mesh(gpus, model, expected):
  assert mesh('hardware/gpu.gin', f'NUM_GPUS = {gpus}',
              f'MODEL_PARALLELISM = {model}') == expected
  assert len(hardware.gpu_devices(gpus)) == gpus
  assert gin.get_configurable('mtf_conv.hardware.gpu_devices')() == [
      f'gpu:{n}' for n in range(gpus)]


@pytest.mark.parametrize('hardware_gin, bindings, line', [
    ('tpu', ["TPU_TOPOLOGY = 'v3-33'"], "did you mean 'v3-32'?"),
    ('tpu', ['MODEL_PARALLELISM = 8'],
     'model_parallelism (=8) must divide num_heads (=12): 4 does'),
    ('tpu', ['MODEL_PARALLELISM = 3'],
     'model_parallelism (=3) must divide the number of cores (=32) and the '
     'multiple of vocabularies (=128): 4 does'),
    ('tpu', ['MODEL_PARALLELISM = 0'], 'must divide'),
    ('tpu', ["TPU_TOPOLOGY = 'v3-512'"],
     'a batch of 128 sequences must divide by 512 replicas (512 cores, '
     'model_parallelism 1): a batch of 512 does, or model_parallelism = 4'),
    ('tpu', ["utils.run.batch_size = ('sequences_per_batch', 100)"],
     'a batch of 96 does'),
    ('tpu', ["utils.run.batch_size = ('tokens_per_batch', 5120)"],
     'a batch of 10 sequences'),
    ('tpu', ['BATCH = 12', "utils.run.batch_size = ('sequences_per_batch', "
             '%BATCH)'], 'a batch of 12 sequences'),
    ('gpu', ['NUM_GPUS = 3'],
     'a batch of 128 sequences must divide by 3 replicas (3 cores, '
     'model_parallelism 1): a batch of 129 does'),
    ('gpu', ['NUM_GPUS = 8', 'MODEL_PARALLELISM = 8'],
     'num_heads (=12): 4 does')])
def test_what_does_not_divide_is_told_in_one_line(hardware_gin, bindings, line):
  with pytest.raises(Exception) as error:  # gin adds lines of its own.
    mesh(f'hardware/{hardware_gin}.gin', *bindings)
  message = explain.one_line(error.value)
  assert message is not None and '\n' not in message
  assert line in message


@pytest.mark.parametrize('batch', ['8', "('tokens_per_replica', 1024)",
                                   "('sequences_per_replica', 3)"])
def test_batches_that_divide(batch):
  assert mesh('hardware/tpu.gin', "TPU_TOPOLOGY = 'v3-8'",
              f'utils.run.batch_size = {batch}') == {'batch': 8}
