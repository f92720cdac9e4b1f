import os

import pytest

from mtf_conv.base import errors, gin_files


def test_finds_the_files_of_the_repository():
  found = gin_files.list_gin_files()
  assert 'models/lightconv.tiny.gin' in found
  assert found == sorted(found)
  for name in found:
    assert os.path.isfile(os.path.join(gin_files.gin_folder(), name))


@pytest.mark.parametrize('where', ['package', 'beside it'])
def test_wheel_and_editable_install(where, tmp_path, monkeypatch):
  monkeypatch.delenv('MTF_CONV_GIN', raising=False)
  package = tmp_path / 'mtf_conv'
  folder = (package if where == 'package' else tmp_path) / 'gin'
  (folder / 'models').mkdir(parents=True)
  (folder / 'models' / 'some.gin').touch()
  (folder / 'models' / 'notes.txt').touch()
  monkeypatch.setattr(
      gin_files, '__file__', str(package / 'base' / 'gin_files.py'))
  assert gin_files.gin_folder() == str(folder)
  assert gin_files.list_gin_files() == ['models/some.gin']


def test_does_not_take_gin_config_for_it(tmp_path, monkeypatch):
  (tmp_path / 'gin' / 'torch').mkdir(parents=True)
  monkeypatch.setattr(
      gin_files, '__file__',
      str(tmp_path / 'mtf_conv' / 'base' / 'gin_files.py'))
  with pytest.raises(FileNotFoundError, match='install mtf_conv again'):
    gin_files.gin_folder()


def _folder(path, *names):
  for name in names:
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text('# A model.\n')
  return str(path)


def test_a_folder_of_the_user_adds_models(tmp_path, monkeypatch):
  ours = gin_files.model_names('tiny')
  assert ours[0] == 'transformer'
  first = _folder(tmp_path / 'first', 'models/longconv.tiny.gin',
                  'models/longconv.huge.gin', 'models/longconv.gin')
  second = _folder(tmp_path / 'second', 'models/fft.mini.gin')
  monkeypatch.setenv('MTF_CONV_GIN', os.pathsep.join([first, '', second]))
  assert gin_files.folders() == [gin_files.gin_folder(), first, second]
  assert gin_files.model_names('tiny') == [*ours, 'longconv']
  assert gin_files.model_names()[-2:] == ['longconv', 'fft']
  assert gin_files.sizes() == [
      'tiny', 'mini', 'small', 'base', 'large', 'huge']
  assert gin_files.read('models/fft.mini.gin') == '# A model.\n'


def test_a_file_in_two_folders_is_an_error(tmp_path, monkeypatch):
  folder = _folder(tmp_path, 'models/lightconv.tiny.gin')
  monkeypatch.setenv('MTF_CONV_GIN', folder)
  with pytest.raises(errors.UserError, match='lightconv.tiny.gin is in two '
                     f'folders: .* and {folder}'):
    gin_files.models()


def test_a_folder_that_is_not_there_is_an_error(tmp_path, monkeypatch):
  monkeypatch.setenv('MTF_CONV_GIN', str(tmp_path / 'no'))
  with pytest.raises(errors.UserError, match='MTF_CONV_GIN: .*no is no folder'):
    gin_files.models()
