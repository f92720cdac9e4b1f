"""The order of the rooms: a module imports what stands below its room.

docs/architecture.md says what each is for; pictures.ROOMS is the order.
"""

import ast
import pathlib
import re

import pytest

import mtf_conv
from mtf_conv.pages import pictures

ROOT = pathlib.Path(mtf_conv.__file__).parent
ORDER = [room for row in reversed(pictures.ROOMS) for room in reversed(row)]
RANKS = {room: rank for rank, room in enumerate(ORDER)}


def _modules():
  """All modules of the package: a dict from their names to their files."""
  found = {}
  for folder, name in ((ROOT, 'mtf_conv'),
                       (ROOT.parent / 'tasks', 'mtf_conv.tasks')):
    for path in folder.rglob('*.py'):
      parts = path.relative_to(folder).with_suffix('').parts
      found['.'.join([name, *parts]).removesuffix('.__init__')] = path
  return found


MODULES = _modules()


def _imports(name):
  """The modules of this package that a module imports, anywhere in it."""
  found = set()
  for node in ast.walk(ast.parse(MODULES[name].read_text())):
    if isinstance(node, ast.ImportFrom):
      assert not node.level, f'{name}: imports are absolute'
      names = [f'{node.module}.{alias.name}' for alias in node.names]
      found |= {full if full in MODULES else node.module for full in names}
    elif isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
  return {full for full in found if full.split('.')[0] == 'mtf_conv'}


def _room(name):
  return name.split('.')[1] if '.' in name else None


def test_every_module_has_a_place_and_is_explained():
  assert {_room(name) for name in MODULES} - {None} == {*RANKS}
  page = (ROOT.parent / 'docs' / 'architecture.md').read_text()
  for room in RANKS:
    assert re.search(rf'^\| .*`{room}/?`', page, re.M), room


@pytest.mark.parametrize('name', sorted(MODULES))
def test_imports_go_one_way(name):
  for imported in _imports(name):
    assert imported in MODULES, f'{name} imports {imported}'
    if name == 'mtf_conv' or _room(imported) in (None, _room(name)):
      continue
    assert RANKS[_room(imported)] < RANKS[_room(name)], (
        f'{name} imports {imported}, which does not stand below it')


def test_no_module_imports_itself_through_others():
  done, path = set(), []

  def visit(name):
    assert name not in path, ' -> '.join([*path[path.index(name):], name])
    if name in done:
      return
    path.append(name)
    for imported in sorted(_imports(name)):
      # A module's package is imported before it, and names what it holds.
      if not name.startswith(f'{imported}.') and imported != 'mtf_conv':
        visit(imported)
    done.add(path.pop())

  for name in sorted(MODULES):
    visit(name)


def test_the_product_has_no_mocks():
  for name, path in MODULES.items():
    assert 'unittest' not in path.read_text(), name
