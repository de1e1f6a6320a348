"The exported package passes a type checker; what its classes get by `@patch` below them counts as theirs."
import subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_package_has_no_type_errors_and_a_wrong_use_has_one(tmp_path):
    "`search` and `get` stand below their class: the checker knows them and their types"
    use = tmp_path/'use.py'
    use.write_text('''from distill.library.catalog import ModelLibrary
lib = ModelLibrary('models')
print(lib.search('rain')[0].name)
lib.get(1).no_such_thing
''')
    r = subprocess.run([sys.executable, '-m', 'mypy', 'distill', use], cwd=ROOT, capture_output=True, text=True)
    errors = [l for l in r.stdout.splitlines() if ' error: ' in l]
    assert len(errors) == 1 and 'no_such_thing' in errors[0] and 'use.py' in errors[0], r.stdout + r.stderr
