"The README, with links that also lead somewhere outside the repository. Everything else is in pyproject.toml."
import re
from pathlib import Path
from setuptools import setup

REPOSITORY = 'https://github.com/distill-audio/distill'

def absolute(text: str) -> str:
    "Links to files of the repository lead to its site; images to the files themselves"
    def address(m): return f'{m[1]}]({REPOSITORY}/{"raw" if m[1][0] == "!" else "blob"}/main/{m[2]})'
    return re.sub(r'(!?\[[^\]]*)\]\((?!\w+:|#)([^)]+)\)', address, text)

readme = Path(__file__).with_name('README.md').read_text(encoding='utf-8')
setup(long_description=absolute(readme), long_description_content_type='text/markdown')
