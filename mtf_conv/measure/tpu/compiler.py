"""The TPU's own compiler, libtpu, on a machine without a TPU.

It is in an environment of its own, which run_scripts/tpu_compiler.sh makes:
JAX 0.5.3 loads it, and does not fit beside TensorFlow 2.15. What it says of a
program is kept in a folder, by the sha256 of the program and of all versions.
"""

import gzip
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import tempfile
import time
from importlib import metadata
from typing import NamedTuple

import mtf_conv
from mtf_conv import hardware
from mtf_conv.base import errors, files
from mtf_conv.measure.tpu import libtpu_worker

# What all figures were made with; as in run_scripts/tpu_compiler.lock.
VERSIONS = {'jax': '0.5.3', 'jaxlib': '0.5.3', 'libtpu': '0.0.11.4'}
SCRIPT = 'run_scripts/tpu_compiler.sh'
VARIABLE = 'TPU_COMPILER_VENV'

# Those that were tried. libtpu describes others, too.
TOPOLOGIES = ('v2:2x2', 'v2:4x4', 'v3:2x2', 'v3:2x4', 'v3:4x4', 'v3:4x8',
              'v3:8x8', 'v4:2x2x1', 'v4:2x2x4', 'v4:4x4x4', 'v5e:2x2',
              'v5e:4x8', 'v5p:2x2x1', 'v6e:2x2', 'v6e:4x4')

# Cycles in a second: Jouppi et al. 2020 (doi 10.1145/3360307) for v2 and v3,
# Jouppi et al. 2023 (doi 10.1145/3579371) for v4. Others are not published.
HERTZ = {'TPU v2': 700e6, 'TPU v3': 940e6, 'TPU v4': 1050e6}


class Compiled(NamedTuple):
  """What the compiler says of a program.

  Attributes:
    text: the optimized program, HLO.
    device: such as 'TPU v3'.
    cores: of the topology.
    replicas: the cores that run the program.
    seconds: that it took, when it was compiled.
    arguments: bytes of a core's inputs and variables.
    outputs: bytes of results and of variables that are assigned to.
    aliased: bytes of outputs that are kept where the arguments were.
    temporaries: bytes of what is kept on the way, at most at a time.
    code: bytes of the program.
    bundles: of instructions, a dict from names of operations to how many the
      core does; empty if they were not asked for.
  """

  text: str
  device: str
  cores: int
  replicas: int
  seconds: float
  arguments: int
  outputs: int
  aliased: int
  temporaries: int
  code: int
  bundles: dict

  @property
  def peak(self):
    """Bytes of a core's memory, at most at a time, without the code."""
    return (self.arguments + self.temporaries
            + max(0, self.outputs - self.aliased))

  @property
  def hertz(self):
    """Cycles in a second; None where it is not published."""
    return HERTZ.get(self.device)


def topology_name(name) -> str:
  """Returns libtpu's name of a topology.

  Args:
    name: such as v3:4x4; or v3-32, as Cloud TPU has it.

  Raises:
    errors.UserError: it cannot be the name of one.
  """
  if re.fullmatch(r'v\d+[a-z]*:\d+x\d+(x\d+)?', name):
    return name
  known = hardware.topologies()
  if name in known:
    return f'{name.partition("-")[0]}:{known[name].shape}'
  raise errors.UserError(
      f'TPU topology {name!r} does not exist: v3-32 and v3:4x4 are names of '
      f'one{errors.nearest(name, [*TOPOLOGIES, *known])}')


def python() -> str:
  """Finds the Python that has the compiler, in the right version.

  Raises:
    errors.UserError: this machine cannot have one, none is there, or it has
      other versions.
  """
  machine = f'{platform.system()} {platform.machine()}'
  if machine != 'Linux x86_64':
    raise errors.UserError(
        f'libtpu is built for Linux on x86-64, and this is {machine}: run it '
        'there')
  folder = pathlib.Path(os.environ.get(VARIABLE) or (
      pathlib.Path(mtf_conv.__file__).parents[1] / '.venv-tpu'))
  path = folder / 'bin' / 'python'
  if not path.exists():
    raise errors.UserError(
        f"the TPU's compiler is not in {folder}: {SCRIPT} makes it "
        f'({VARIABLE} names another folder)')
  installed = metadata.distributions(
      path=[str(p) for p in folder.glob('lib/python3*/site-packages')])
  found = {d.metadata['Name'].lower(): d.version for d in installed}
  for name, version in VERSIONS.items():
    if found.get(name) != version:
      raise errors.UserError(
          f'{folder} has {name} {found.get(name, "nowhere")}, and {version} is '
          f'needed: {SCRIPT} makes it anew')
  return str(path)


def cache_folder() -> pathlib.Path:
  """Returns where compiled programs are kept when nothing else is said."""
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME')
                      or pathlib.Path.home() / '.cache') / 'mtf_conv' / 'tpu'


def key(program, topology, replicas, bundles=False) -> str:
  """Returns what a compiled program is kept under.

  Args:
    program: a serialized HloModuleProto.
    topology: libtpu's name.
    replicas: the cores that run it; None for all.
    bundles: whether they are counted.
  """
  described = json.dumps(
      [topology, replicas, VERSIONS, *['bundles'] * bundles], sort_keys=True)
  return hashlib.sha256(
      hashlib.sha256(program).digest() + described.encode()).hexdigest()


def compile_program(program, topology, replicas=None, cache=None,
                    bundles=False) -> Compiled:
  """Compiles a program, or finds what was said of the same one before.

  Args:
    program: a serialized HloModuleProto.
    topology: libtpu's name, such as v3:4x4.
    replicas: the cores that run it; None for all there are.
    cache: a folder for what is compiled; cache_folder() when None.
    bundles: whether they are counted, of each operation. The compiler writes
      some 100 MB for a block, and some GB for a model.

  Raises:
    errors.UserError: see python; or the compiler refuses, in its own words; or
      it was killed.
  """
  folder = pathlib.Path(cache or cache_folder()) / key(
      program, topology, replicas, bundles)
  if not (folder / 'result.json').exists():
    interpreter = python()
    with files.new_folder(folder) as out:
      _compile(interpreter, program, topology, replicas, bundles, out)
  with gzip.open(folder / 'optimized.txt.gz', 'rt') as f:
    text = f.read()
  result = json.loads((folder / 'result.json').read_text())
  return Compiled(text, **{'bundles': {}, **result})


def _compile(interpreter, program, topology, replicas, bundles, out):
  begin = time.time()
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'program.pb')
    with open(path, 'wb') as f:
      f.write(program)
    result = subprocess.run(
        [interpreter, libtpu_worker.__file__],
        input=json.dumps({'topology': topology, 'replicas': replicas,
                          'program': path, 'out': str(out),
                          'bundles': bundles}),
        # What this Python imports is not for that one.
        env={**{name: value for name, value in os.environ.items()
                if not name.startswith('PYTHON')},
             **libtpu_worker.ENVIRONMENT},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  if result.returncode:
    raise errors.UserError(refusal(
        topology, result.returncode, result.stdout, result.stderr,
        time.time() - begin))


def refusal(topology, code, stdout, stderr, seconds) -> str:
  """Says in one line why a program was not compiled.

  Args:
    topology: libtpu's name.
    code: the exit code of the worker.
    stdout: what it printed.
    stderr: what it printed as an error.
    seconds: how long it ran.
  """
  if code < 0:
    return (f"the TPU's compiler was killed (signal {-code}) after "
            f'{seconds:.0f} s: signal 9 may be for want of memory')
  if code != libtpu_worker.REFUSED:
    lines = [line for line in stderr.splitlines() if line.strip()]
    return f"the TPU's compiler failed: {lines[-1] if lines else code}"
  said = ' '.join(stdout.split())
  if re.search('[Tt]opology layout|external name|topology_name', said):
    return (f'TPU topology {topology!r} does not exist: {said}; tried were '
            f'{", ".join(TOPOLOGIES)}{errors.nearest(topology, TOPOLOGIES)}')
  # It goes on for pages.
  said = re.split(' (?:Largest|Total hbm|Allocation type)', said)[0][:400]
  return f"{topology}: the TPU's compiler says: {said}"
