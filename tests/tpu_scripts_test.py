"""run_scripts/tpu without a cloud: a stand-in for gcloud keeps a record.

The stand-in takes a folder for the TPU's first host: what is copied there and
run there is copied and run in it. The real gcloud is asked for its help only.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time

import commands
import pytest

GCLOUD = r'''#!/usr/bin/env bash
# Records the call, fails if it is told to, and does what a TPU's host would.
printf '%s\0' "$@" >>"$RECORD"; printf '\n' >>"$RECORD"
if [[ -n "${FAIL:-}" && "$*" =~ $FAIL ]]; then echo 'gcloud: no' >&2; exit 1; fi
if [[ -n "${HANG:-}" && "$*" =~ $HANG ]]; then exec sleep 60; fi
case "$3 $4" in
  'queued-resources describe')
    read -r state <"$STATES"; sed -i 1d "$STATES"; echo "$state" ;;
  'tpu-vm scp')
    for last; do [[ "$last" == --* ]] || words+=("$last"); done
    words=("${words[@]:4}")
    cp -r "${words[@]:0:${#words[@]}-1}" "$HOST/mtf_conv"
    # The host has an environment, and these programs in it.
    echo 'PATH="$HOST/bin:$PATH"; echo installed' \
      >"$HOST/mtf_conv/run_scripts/environment.sh" ;;
  'tpu-vm ssh')
    for word; do
      [[ "$word" != --command=* ]] || command="${word#--command=}"
    done
    cd "$HOST" && exec bash -c "$command" ;;
esac
'''
MAIN = r'''#!/usr/bin/env bash
echo "loads TPU: ${TPU_LOAD_LIBRARY:-1}"
for word; do echo "flag $word"; done
while [[ -e "$HOST/wait" ]]; do sleep 0.1; done
echo "ends"
exit "$(cat "$HOST/code" 2>/dev/null || echo 0)"
'''


class Cloud:
  """A folder with the stand-ins, and what they were asked."""

  def __init__(self, folder):
    self.folder, self.record = folder, folder / 'record'
    self.states, self.host = folder / 'states', folder / 'host'
    for path, text in ((folder / 'bin' / 'gcloud', GCLOUD),
                       (self.host / 'bin' / 't5_mesh_conv', MAIN)):
      path.parent.mkdir(parents=True)
      path.write_text(text)
      path.chmod(0o755)
    self.environ = {
        'PATH': f'{folder}/bin:{os.environ["PATH"]}', 'HOST': str(self.host),
        'RECORD': str(self.record), 'STATES': str(self.states),
        'POLL_SECONDS': '0', 'TPU_NAME': 'conv', 'TPU_ZONE': 'europe-west4-a',
        'MODEL_DIR': 'gs://bucket/a model', 'TASK': 'trec',
        'PRETRAINED': "gs://bucket/it's"}

  def start(self, script, *args, **environ):
    self.record.unlink(missing_ok=True)
    def listen():
      # Tests in the background or under nohup ignore them, as would children.
      for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(
        [commands.ROOT / 'run_scripts' / 'tpu' / script, *args],
        env={**self.environ, **environ}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=listen)

  def run(self, script, *args, **environ):
    """Returns the exit code, standard output and standard error."""
    process = self.start(script, *args, **environ)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err

  def calls(self):
    if not self.record.exists():
      return []
    return [call.split('\0')[:-1]
            for call in self.record.read_text().splitlines()]

  def verbs(self):
    return [' '.join(call[2:4]) for call in self.calls()]


@pytest.fixture
def cloud(tmp_path):
  return Cloud(tmp_path)


CREATE = ['tpu-vm create', 'tpu-vm ssh', 'tpu-vm scp', 'tpu-vm ssh']
DESCRIBE = 'queued-resources describe'


def mentions(err):
  """The lines about a TPU that is left: what is said, and what deletes it."""
  lines = err.strip().splitlines()
  found = [i for i, line in enumerate(lines) if 'The TPU conv' in line]
  return (lines[found[0]], lines[found[0] + 1]) if found else None


def check_mentioned(cloud, err):
  """Checks that the command that is printed deletes the TPU."""
  said, command = mentions(err)
  assert 'until it is deleted' in said and 'europe-west4-a' in said
  result = subprocess.run(
      ['bash', '-c', command], cwd=commands.ROOT, text=True,
      capture_output=True, env={**{
          name: value for name, value in cloud.environ.items()
          if not name.startswith('TPU_')}})
  assert result.returncode == 0, result.stderr
  deleted = cloud.calls()[-1]
  assert deleted[3:5] == ['delete', 'conv']
  assert '--zone=europe-west4-a' in deleted
  assert not mentions(result.stderr)
  return deleted


def test_created_run_and_deleted(cloud):
  code, _, err = cloud.run('create.sh')
  assert code == 0, err
  assert cloud.verbs() == CREATE
  assert cloud.calls()[0] == [
      'compute', 'tpus', 'tpu-vm', 'create', 'conv',
      '--accelerator-type=v3-32', '--version=tpu-vm-tf-2.15.0-pod-se',
      '--zone=europe-west4-a']
  assert 'is there' in mentions(err)[0]

  code, out, err = cloud.run(
      'run.sh', 'finetune', "--gin_param=DATA_SEED = 1", TPU_PROJECT='some')
  assert code == 0, err
  assert cloud.verbs() == ['tpu-vm ssh']
  assert 'loads TPU: 0\n' in out and out.endswith('ends\n')
  words = [line[5:] for line in out.splitlines() if line.startswith('flag ')]
  assert words[0] == '--model_dir=gs://bucket/a model'
  assert {'--tpu=conv', '--tpu_zone=europe-west4-a', '--gcp_project=some',
          "--gin_param=TPU_TOPOLOGY = 'v3-32'"} <= set(words)
  assert words[-1] == '--gin_param=DATA_SEED = 1'
  commands.check(['t5_mesh_conv', *words])
  assert 'is there' in mentions(err)[0]

  code, _, err = cloud.run('delete.sh')
  assert code == 0 and not err
  assert cloud.calls() == [[
      'compute', 'tpus', 'tpu-vm', 'delete', 'conv', '--quiet',
      '--zone=europe-west4-a']]


def test_one_host_is_local(cloud):
  assert cloud.run('create.sh', TPU_TOPOLOGY='v3-8', TPU_SPOT='1')[0] == 0
  assert cloud.calls()[0][5:8] == [
      '--accelerator-type=v3-8', '--spot', '--version=tpu-vm-tf-2.15.0-se']
  code, out, _ = cloud.run('run.sh', 'eval', TPU_TOPOLOGY='v3-8')
  assert code == 0
  assert 'loads TPU: 1\n' in out and 'flag --tpu=local\n' in out


def test_a_queued_resource_is_waited_for(cloud):
  cloud.states.write_text(
      'WAITING_FOR_RESOURCES\nWAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n')
  code, _, err = cloud.run('create.sh', TPU_QUEUED='1')
  assert code == 0, err
  assert cloud.verbs() == [
      'queued-resources create', *4 * [DESCRIBE], *CREATE[1:]]
  assert '--node-id=conv' in cloud.calls()[0]
  assert err.splitlines()[:3] == [
      'conv: WAITING_FOR_RESOURCES', 'conv: PROVISIONING', 'conv: ACTIVE']
  deleted = check_mentioned(cloud, err)
  assert deleted[2] == 'queued-resources' and '--force' in deleted


@pytest.mark.parametrize('environ, script', [
    ({'FAIL': 'tpu-vm create'}, 'create.sh'),
    ({'FAIL': 'mkdir'}, 'create.sh'),
    ({'FAIL': 'tpu-vm scp'}, 'create.sh'),
    ({'FAIL': 'environment.sh'}, 'create.sh'),
    ({'FAIL': 'queued-resources create', 'TPU_QUEUED': '1'}, 'create.sh'),
    ({'STATE': 'FAILED', 'TPU_QUEUED': '1'}, 'create.sh'),
    ({'STATE': 'SUSPENDED', 'TPU_QUEUED': '1', 'TPU_PROJECT': 'some'},
     'create.sh'),
    ({'FAIL': 'tpu-vm ssh'}, 'run.sh'),
    ({'FAIL': 'tpu-vm delete'}, 'delete.sh'),
    ({'FAIL': 'queued-resources delete', 'TPU_QUEUED': '1'}, 'delete.sh'),
])
def test_a_failed_step_leaves_no_tpu_unmentioned(cloud, environ, script):
  cloud.states.write_text(environ.pop('STATE', '') + '\n')
  args = ['finetune'] if script == 'run.sh' else []
  code, _, err = cloud.run(script, *args, **environ)
  assert code != 0
  before = cloud.verbs()
  if 'FAIL' in environ:  # Nothing is called after the step that failed.
    assert re.search(environ['FAIL'], ' '.join(cloud.calls()[-1]))
  deleted = check_mentioned(cloud, err)
  assert cloud.verbs() == [*before, ' '.join(deleted[2:4])]
  assert (deleted[2] == 'queued-resources') == ('TPU_QUEUED' in environ)
  assert ('--project=some' in deleted) == ('TPU_PROJECT' in environ)


@pytest.mark.parametrize('number', [
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_script_leaves_no_tpu_unmentioned(cloud, number):
  process = cloud.start('create.sh', HANG='tpu-vm create')
  deadline = time.monotonic() + 30
  while not cloud.calls():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
  os.killpg(process.pid, number)  # As a terminal does.
  _, err = process.communicate(timeout=30)
  assert process.returncode == 128 + number
  assert 'may be there' in mentions(err)[0]
  check_mentioned(cloud, err)


def test_a_job_outlives_the_connection_and_is_followed_again(cloud):
  cloud.run('create.sh')
  wait = cloud.host / 'wait'
  wait.touch()
  (cloud.host / 'code').write_text('7')
  process = cloud.start('run.sh', 'finetune')
  log = cloud.host / 'job.log'
  deadline = time.monotonic() + 30
  while not (log.exists() and 'flag' in log.read_text()):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
  os.killpg(process.pid, signal.SIGTERM)
  assert 'is there' in mentions(process.communicate(timeout=30)[1])[0]
  assert not (cloud.host / 'job.exit').exists()

  follower = cloud.start('run.sh', 'finetune')
  time.sleep(0.5)
  wait.unlink()
  out, err = follower.communicate(timeout=30)
  assert 'A job is running already' in out
  assert out.count('flag --model_dir') == 1 and out.endswith('ends\n')
  # The job's own exit code, and still a TPU.
  assert follower.returncode == 7
  assert mentions(err)

  (cloud.host / 'code').unlink()
  code, out, _ = cloud.run('run.sh', 'finetune')
  assert code == 0 and 'running already' not in out


def test_a_killed_job_is_told(cloud):
  cloud.run('create.sh')
  (cloud.host / 'wait').touch()
  process = cloud.start('run.sh', 'finetune')
  deadline = time.monotonic() + 30
  log = cloud.host / 'job.log'
  while not (log.exists() and 'flag' in log.read_text()):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
  os.killpg(int((cloud.host / 'job.pid').read_text()), signal.SIGKILL)
  out, err = process.communicate(timeout=30)
  assert process.returncode == 1 and 'The job was killed.' in out
  assert mentions(err)


@pytest.mark.parametrize('script, args, environ', [
    ('create.sh', [], {}), ('create.sh', [], {'TPU_QUEUED': '1'}),
    ('run.sh', ['finetune'], {}), ('delete.sh', [], {'TPU_PROJECT': 'some'})])
def test_a_dry_run_prints_what_a_run_calls(cloud, script, args, environ):
  cloud.states.write_text('ACTIVE\n')
  (cloud.host / 'mtf_conv').mkdir()
  shutil.copytree(commands.ROOT / 'run_scripts',
                  cloud.host / 'mtf_conv' / 'run_scripts')
  (cloud.host / 'mtf_conv' / 'run_scripts' / 'environment.sh').write_text(
      'PATH="$HOST/bin:$PATH"')
  code, out, err = cloud.run(script, *args, '--dry_run', **environ)
  assert code == 0 and not err and not cloud.calls()
  printed = subprocess.run(
      ['bash', '-c', out[out.index('gcloud compute'):]], text=True,
      env={**cloud.environ, 'RECORD': str(cloud.folder / 'printed')},
      capture_output=True)
  assert printed.returncode == 0, printed.stderr
  cloud.states.write_text('ACTIVE\n')
  assert cloud.run(script, *args, **environ)[0] == 0
  assert (cloud.folder / 'printed').read_text() == cloud.record.read_text()
  if script == 'run.sh':
    command = out[:out.index('gcloud compute')].replace('\\\n', '')
    commands.check(shlex.split(command))


@pytest.mark.slow
def test_gcloud_has_the_commands_and_flags(cloud):
  gcloud = shutil.which('gcloud')
  if gcloud is None:
    pytest.skip('needs gcloud, of the Google Cloud SDK')
  cloud.states.write_text('ACTIVE\n')
  calls = []
  for queued in '', '1':
    for script, *args in (
        ['create.sh'], ['run.sh', 'finetune'], ['delete.sh']):
      assert cloud.run(script, *args, TPU_QUEUED=queued, TPU_SPOT='1',
                       TPU_PROJECT='some')[0] == 0
      calls += cloud.calls()
  for command in sorted({tuple(call[:4]) for call in calls}):
    # Underlined letters are written twice.
    shown = re.sub('.\b', '', subprocess.run(
        [gcloud, *command, '--help'], capture_output=True, text=True,
        check=True, env={**os.environ, 'CLOUDSDK_CONFIG': str(
            cloud.folder / 'gcloud')}).stdout)
    known = set(re.findall(r'--[a-z][a-z-]+', shown))
    used = {word.split('=')[0] for call in calls if tuple(call[:4]) == command
            for word in call if word.startswith('--')}
    assert used <= known, command


@pytest.mark.parametrize('script, args, environ, said', [
    ('create.sh', [], {'TPU_NAME': ''}, 'TPU_NAME is not set'),
    ('delete.sh', [], {'TPU_ZONE': ''}, 'TPU_ZONE is not set'),
    ('create.sh', [], {'TPU_TOPOLOGY': 'v3-16'},
     'TPU_TOPOLOGY (=v3-16) does not exist: choose from v2-8 v2-32'),
    ('create.sh', [], {'TPU_TOPOLOGY': 'v5litepod-16'},
     'TPU_TOPOLOGY (=v5litepod-16): TPUEstimator, through which T5 trains, '
     'crashes on v5litepod (tensorflow/tensorflow#90807): take v2, v3 or v4'),
    ('run.sh', ['train'], {}, "unknown script 'train'"),
    ('run.sh', ['eval'], {'MODEL_DIR': 'runs'}, 'MODEL_DIR (=runs)'),
    ('run.sh', ['eval'], {'TASK': ''}, 'TASK is not set'),
    ('create.sh', [], {'PATH': 'tools'}, 'no gcloud on the PATH')])
def test_wrong_input_is_told_before_anything_is_started(
    cloud, script, args, environ, said):
  if 'PATH' in environ:  # Never one that may have the real gcloud.
    environ = {'PATH': str(cloud.folder / 'tools')}
    os.mkdir(environ['PATH'])
    for name in ('bash', 'dirname', 'grep', 'sed'):
      os.symlink(shutil.which(name), f'{environ["PATH"]}/{name}')
  code, _, err = cloud.run(script, *args, **environ)
  assert code == 2
  assert said in err and err.count('\n') == 1
  assert not cloud.calls()


@pytest.mark.parametrize('script', ['create.sh', 'run.sh', 'delete.sh'])
def test_help_names_every_variable(script):
  folder = pathlib.Path(commands.ROOT, 'run_scripts', 'tpu')
  shown = subprocess.run(
      [folder / script, '--help'], capture_output=True, text=True,
      check=True).stdout
  variables = set(re.findall(
      r'\$\{?((?:TPU|POLL)_[A-Z]+)',
      (folder / script).read_text() + (folder / 'gcloud.sh').read_text()))
  assert variables <= set(re.findall(r'[A-Z_]+', shown))
