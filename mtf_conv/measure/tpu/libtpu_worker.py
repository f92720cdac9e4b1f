"""Compiles a program for TPUs, without one; runs in the compiler's environment.

`compiler` runs this file with the Python that has JAX and libtpu, and that has
no mtf_conv: nothing of it is imported here. It reads from stdin

    {"topology": "v3:4x4", "replicas": 32, "program": FILE, "out": FOLDER,
     "bundles": false}

and writes into the folder optimized.txt.gz, the program as the compiler left
it, with its estimates, and result.json. Nothing looks for a TPU or asks the
network.
"""

import gzip
import json
import math
import os
import re
import sys
import tempfile
import time

# No TPU, no server that describes one, no other host, no folder of logs. Other
# processes may have libtpu loaded at the same time.
ENVIRONMENT = {
    'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_LOG_DIR': 'disabled',
    'TPU_STDERR_LOG_LEVEL': '3', 'TF_CPP_MIN_LOG_LEVEL': '3',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}

# The compiler writes what it made of each operation, among much else.
_DUMP = ('--xla_jf_dump_to={} --xla_jf_dump_llo_text=true '
         '--xla_jf_dump_llo_pass_label_regex=final_bundles')

# The exit code where the compiler said why not.
REFUSED = 3


def compile_program(topology, replicas, program):
  """Compiles for the first cores of a topology.

  Args:
    topology: its name in libtpu, such as v3:4x4.
    replicas: how many cores run the program; None for all there are.
    program: a serialized HloModuleProto.

  Returns:
    (the optimized program as text, a dict of what else is known: bytes of
    memory, the kind of device and how many there are, seconds).
  """
  import numpy as np
  from jax._src.lib import xla_client
  from jax.experimental import topologies

  devices = topologies.get_topology_desc(
      platform='tpu', topology_name=topology).devices
  replicas = replicas or len(devices)
  if replicas > len(devices):
    raise ValueError(
        f'{topology} has {len(devices)} cores, and not {replicas}')
  options = xla_client.CompileOptions()
  options.num_replicas = replicas
  options.num_partitions = 1
  options.device_assignment = xla_client.DeviceAssignment.create(
      np.array([[device.id] for device in devices[:replicas]]))
  begin = time.time()
  executable = devices[0].client.compile(
      xla_client._xla.mlir.xla_computation_to_mlir_module(
          xla_client.XlaComputation(program)), options)
  memory = executable.get_compiled_memory_stats()
  return executable.hlo_modules()[0].to_string(), {
      'device': devices[0].device_kind, 'cores': len(devices),
      'replicas': replicas, 'seconds': round(time.time() - begin, 1),
      **{name: getattr(memory, f'{field}_size_in_bytes')
         for name, field in (
             ('arguments', 'argument'), ('outputs', 'output'),
             ('aliased', 'alias'), ('temporaries', 'temp'),
             ('code', 'generated_code'))}}


def bundles(text):
  """Returns how many bundles of instructions an operation takes.

  A core does a bundle in a cycle, if it need not wait. The body of the one loop
  is done as often as the operation has blocks.

  Args:
    text: the final bundles of an operation.

  Returns:
    An integer; None where loops lie in loops.
  """
  lines = re.findall(r'^ *(?:0x[0-9a-f]+|0) ([ A-Z:]*>?(?: >)*)', text, re.M)
  if any(prefix.count('>') > 1 for prefix in lines):
    return None
  blocks = re.search(r'^iteration_bounds: \(([\d, ]+)\)', text, re.M)
  return len(lines) * (
      math.prod(map(int, blocks.group(1).split(','))) if blocks else 1)


def _bundles_of_all(folder):
  """Returns a dict from names of operations to their bundles."""
  found = {}
  for name in os.listdir(folder):
    operation = re.fullmatch(r'\d+-(.+)-\d+-final_bundles\.txt', name)
    if operation and 'schedule-analysis' not in name:
      with open(os.path.join(folder, name)) as f:
        found[operation.group(1)] = bundles(f.read())
  return found


def main():
  """Reads the task and writes what the compiler says."""
  task = json.load(sys.stdin)
  with open(task['program'], 'rb') as f:
    program = f.read()
  with tempfile.TemporaryDirectory() as dump:
    if task['bundles']:
      os.environ['LIBTPU_INIT_ARGS'] = _DUMP.format(dump)
    try:
      text, result = compile_program(
          task['topology'], task['replicas'], program)
    except (RuntimeError, ValueError) as error:
      print(error)
      sys.exit(REFUSED)
    result['bundles'] = _bundles_of_all(dump)
  with gzip.open(os.path.join(task['out'], 'optimized.txt.gz'), 'wt') as f:
    f.write(text)
  with open(os.path.join(task['out'], 'result.json'), 'w') as f:
    json.dump(result, f)


if __name__ == '__main__':
  main()
