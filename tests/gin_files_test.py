import os

import pytest

from mtf_conv import gin_files


def test_finds_the_files_of_the_repository():
  found = gin_files.list_gin_files()
  assert 'models/lightconv.tiny.gin' in found
  assert found == sorted(found)
  for name in found:
    assert os.path.isfile(os.path.join(gin_files.gin_folder(), name))


@pytest.mark.parametrize('where', ['package', 'beside it'])
def test_wheel_and_editable_install(where, tmp_path, monkeypatch):
  package = tmp_path / 'mtf_conv'
  folder = (package if where == 'package' else tmp_path) / 'gin'
  (folder / 'models').mkdir(parents=True)
  (folder / 'models' / 'some.gin').touch()
  (folder / 'models' / 'notes.txt').touch()
  monkeypatch.setattr(gin_files, '__file__', str(package / 'gin_files.py'))
  assert gin_files.gin_folder() == str(folder)
  assert gin_files.list_gin_files() == ['models/some.gin']


def test_does_not_take_gin_config_for_it(tmp_path, monkeypatch):
  (tmp_path / 'gin' / 'torch').mkdir(parents=True)
  monkeypatch.setattr(
      gin_files, '__file__', str(tmp_path / 'mtf_conv' / 'gin_files.py'))
  with pytest.raises(FileNotFoundError, match='install mtf_conv again'):
    gin_files.gin_folder()
